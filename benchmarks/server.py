"""The local server, in a process of its own, for the benchmarks that ask it."""

import contextlib
import pathlib
import re
import subprocess
import sys

__all__ = ["served"]

_SERVER = pathlib.Path(__file__).resolve().parent.parent / "export" / "serve_main.py"


@contextlib.contextmanager
def served(directory):
    """A server's process id, and its ports of gRPC and REST.

    Args:
      directory: path of the exported model, which is served by the name "model".
    """
    flags = [f"--model_base_path={directory}", "--model_name=model", "--port=0", "--rest_api_port=0"]
    command = [sys.executable, str(_SERVER), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            lines = [process.stdout.readline() for _ in range(2)]  # type: ignore[union-attr]
            found = [re.search(r":(\d+)(/|\s*$)", line) for line in lines]
            if not all(found):
                raise RuntimeError("The local server has not started.")
            grpc, rest = (match[1] for match in found if match)
            yield process.pid, grpc, rest
        finally:
            process.terminate()
