"""Processes that have imported the library before they start, which takes longer than what they do here.

Each is a fork of one that has only imported it: TensorFlow's own threads start with the first operation.
"""

import multiprocessing
import os
import runpy
import sys
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from unittest import mock

import quick


class Process(ForkServerProcess):
    """One that runs graphs as the tests do."""

    def run(self):
        quick.settle()
        super().run()


def context():
    """In place of multiprocessing's "spawn" context."""
    warm = multiprocessing.get_context("forkserver")
    warm.Process = Process
    warm.set_forkserver_preload(["imported"])
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):  # All that it is told of where modules are.
        forkserver.ensure_running()  # Now, so that it is not born while somebody ignores Ctrl-C.
    return warm


def start(program, *flags, cwd, stdout, stderr=None, env=(), optimized=False):
    """Runs a program as `python program flags` would.

    Args:
      program: path of a file.
      *flags: anything, as text.
      cwd: path, of its working directory.
      stdout: path of a file that what it prints is added to.
      stderr: the same of what it says on stderr; by default that of `stdout`.
      env: dict, of environment variables beside the tests' own.
      optimized: bool, as in `quick.optimize`.

    Returns:
      `multiprocessing.Process`, started.
    """
    arguments = [str(program), *map(str, flags)]
    process = context().Process(target=_run, args=(arguments, cwd, stdout, stderr or stdout, dict(env), optimized))
    process.start()
    return process


def _run(arguments, cwd, stdout, stderr, env, optimized):
    quick.optimize(optimized)
    os.chdir(cwd)
    os.environ.update(env)
    for path, descriptor in ((stdout, 1), (stderr, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    sys.argv = arguments
    sys.orig_argv = [sys.executable, *arguments]
    runpy.run_path(arguments[0], run_name="__main__")
