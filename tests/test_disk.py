"""What is durable, in which order, and what a copy refuses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from datarun_daemon import disk


def system_calls(folder: Path, code: str) -> list[str]:
    """The calls that the code makes on files below ``folder``, in order, as ``fsync(out.txt)``."""
    trace = folder / "trace"
    calls = "trace=write,fsync,fdatasync,syncfs,rename,renameat2,renameat"
    command = ["strace", "-f", "-y", "-e", calls, "-o", str(trace), sys.executable, "-c", code]
    subprocess.run(command, check=True, cwd=folder)
    found = []
    for line in trace.read_text().splitlines():
        if match := re.search(rf"(\w+)\((?:\d+<)?[\"]?({re.escape(str(folder))}[^>\",]*)", line):
            name = Path(match[2]).name
            found.append(f"{match[1]}({re.sub(r'[.].*[.]tmp', 'temporary', name)})")
    return found


def test_a_file_is_written_then_synced_then_renamed_and_then_its_folder_is_synced(tmp_path: Path):
    folder = tmp_path / "here"
    folder.mkdir()
    code = (
        "from pathlib import Path; from datarun_daemon import disk;"
        f"disk.write_atomically(Path({str(folder / 'out')!r}), b'x')"
    )

    assert system_calls(tmp_path, code) == ["write(temporary)", "fsync(temporary)", "rename(temporary)", "fsync(here)"]


def test_a_line_is_synced_before_append_returns(tmp_path: Path):
    code = (
        "import os; from datarun_daemon import disk; fd = os.open('log', os.O_RDWR | os.O_CREAT | os.O_APPEND);"
        "disk.append(fd, b'one', durable=True); disk.append(fd, b'two', durable=False)"
    )

    assert system_calls(tmp_path, code) == ["write(log)", "fdatasync(log)", "write(log)"]


@pytest.mark.parametrize(("number", "calls"), [(2, ["fsync(0)", "fsync(1)"]), (20, ["syncfs(here)"])])
def test_few_files_are_synced_one_by_one_and_many_at_once(tmp_path: Path, number: int, calls: list[str]):
    folder = tmp_path / "here"
    folder.mkdir()
    for name in range(number):
        (folder / str(name)).write_text("x")
    code = (
        "from pathlib import Path; from datarun_daemon import disk; folder = Path('here').absolute();"
        "disk.make_durable(sorted(folder.iterdir()), below=folder)"
    )

    assert system_calls(tmp_path, code) == calls


def test_a_failed_fsync_is_told_and_not_tried_again(tmp_path: Path):
    code = (
        "import os; from datarun_daemon import disk; from datarun_daemon.core.errors import DiskFailed\n"
        "fd = os.open('log', os.O_RDWR | os.O_CREAT)\n"
        "try: disk.sync_descriptor(fd)\n"
        "except DiskFailed as error: print(error)\n"
    )
    trace = tmp_path / "trace"
    fault = ["-e", "trace=fsync", "-e", "inject=fsync:error=EIO"]
    command = ["strace", *fault, "-o", str(trace), sys.executable, "-c", code]

    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)

    assert "fsync failed" in done.stdout
    assert trace.read_text().count("fsync(") == 1


def test_a_copy_has_the_content_and_tells_its_digest(tmp_path: Path):
    (tmp_path / "source").write_bytes(b"abc" * 700_000)
    with (tmp_path / "source").open("rb") as source:
        copied = disk.copy_bounded(source.fileno(), tmp_path / "copy", limit_bytes=1 << 30)

    assert copied.bytes == 2_100_000
    assert copied.sha256 == "4e98d1c077705da58a1539b85fd0e829e6ccc59fa5fa76ce292fb2fb5f173e51"
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "source").read_bytes()


def test_a_copy_beyond_its_bound_leaves_nothing(tmp_path: Path):
    (tmp_path / "source").write_bytes(b"x" * 1000)
    with (tmp_path / "source").open("rb") as source, pytest.raises(disk.TooLarge):
        disk.copy_bounded(source.fileno(), tmp_path / "copy", limit_bytes=999)

    assert not (tmp_path / "copy").exists()


def test_removing_a_tree_follows_no_link_and_opens_up_closed_folders(tmp_path: Path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    tree = tmp_path / "tree"
    (tree / "closed" / "inner").mkdir(parents=True)
    (tree / "closed" / "inner" / "file").write_text("x")
    (tree / "link").symlink_to(tmp_path / "precious")
    (tree / "closed").chmod(0)

    disk.remove_tree(tree)

    assert not tree.exists()
    assert (tmp_path / "precious" / "file").exists()
    disk.remove_tree(tree)


def test_a_lock_is_held_until_its_descriptor_is_closed(tmp_path: Path):
    held = disk.lock(tmp_path / "lock")
    assert held is not None

    assert disk.lock(tmp_path / "lock") is None
    assert disk.is_locked(tmp_path / "lock")
    os.close(held)
    assert not disk.is_locked(tmp_path / "lock")


def test_the_file_system_of_a_path_is_found(tmp_path: Path):
    assert disk.file_system(Path("/proc/self")).kind == "proc"
    assert disk.file_system(tmp_path).sends_events
