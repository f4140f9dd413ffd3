"""Files that appear whole, and what is no such file."""

import os
import threading

import pytest

from iwae_zoo._files import whole
from iwae_zoo_console import check_writable


def test_a_link_stays_and_a_pipe_is_written_to(tmp_path):
    real, link, pipe = (tmp_path / name for name in ("real", "link.txt", "pipe"))
    real.write_text("old")
    link.symlink_to(real)
    check_writable(link)
    with whole(link) as partial:
        assert partial.suffix == ".txt"  # By which writers go.
        partial.write_text("new")
    assert link.is_symlink() and real.read_text() == "new"
    os.mkfifo(pipe)
    check_writable(pipe)
    received: list = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_text()), daemon=True)
    reader.start()
    with whole(pipe) as partial:
        partial.write_text("new")
    reader.join(20)
    assert received == ["new"] and pipe.is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.txt", "pipe", "real"]


def test_a_folder_is_no_file(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(IsADirectoryError, match=f"Is a directory: '{folder}'"), whole(folder):
        pytest.fail("written first")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_what_cannot_be_written_is_told_before(tmp_path):
    (tmp_path / "old.txt").write_text("old")
    check_writable(tmp_path / "old.txt")
    check_writable(tmp_path / "new.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["old.txt"]
    for path in (tmp_path, tmp_path / "nowhere" / "new.txt", "/proc/new.txt"):
        with pytest.raises(OSError):
            check_writable(path)
