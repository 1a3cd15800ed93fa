"""Folders within a bundle, entered one by one through held descriptors, and never through a link.

Only RAMP kits have files in folders: of any other bundle nothing here is called.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from datarun_daemon.core.errors import Problem, Rejection
from datarun_daemon.spool.names import MAX_LEVELS, printable

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Entries = dict[str, os.stat_result]


def listed(descriptor: int, list_folder: Callable[[int], Entries], enters: Callable[[str], bool]) -> Entries:
    """By path, what lies in an open folder and in those below it that ``enters`` wants; these are left out themselves.

    Raises:
        Rejection: folders are nested deeper than any file may lie.
        OSError: one cannot be entered.
    """
    found: Entries = {}
    _list(descriptor, "", 1, list_folder, enters, found)
    return found


def _list(
    descriptor: int,
    prefix: str,
    level: int,
    list_folder: Callable[[int], Entries],
    enters: Callable[[str], bool],
    found: Entries,
) -> None:
    for name, status in list_folder(descriptor).items():
        path = prefix + name
        if not stat.S_ISDIR(status.st_mode) or not enters(path):
            found[path] = status
            continue
        if level == MAX_LEVELS:
            expected = f"files at most {MAX_LEVELS} levels deep, folders counted"
            raise Rejection([Problem(printable(path, 200), "a folder at that depth", expected)])
        # FileNotFoundError: it was removed since it was listed
        with contextlib.suppress(FileNotFoundError), opened(descriptor, name, FOLDER_FLAGS) as inner:
            _list(inner, f"{path}/", level + 1, list_folder, enters, found)


def open_below(descriptor: int, path: str, flags: int) -> int:
    """A descriptor of the file at ``path`` below an open folder.

    Raises:
        NotADirectoryError: what should be a folder on the way to it is none, or a link to one.
        OSError: of opening the file.
    """
    folder, _, name = path.rpartition("/")
    if not folder:
        return os.open(name, flags, dir_fd=descriptor)
    with contextlib.ExitStack() as stack:
        inner = descriptor
        for part in folder.split("/"):
            inner = stack.enter_context(opened(inner, part, FOLDER_FLAGS))
        return os.open(name, flags, dir_fd=inner)


@contextlib.contextmanager
def opened(descriptor: int, name: str, flags: int) -> Iterator[int]:
    inner = os.open(name, flags, dir_fd=descriptor)
    try:
        yield inner
    finally:
        os.close(inner)


def folders_of(paths: Iterable[str]) -> list[str]:
    """The folders in which files with these paths lie, outer ones first."""
    folders = {str(folder) for path in paths for folder in PurePosixPath(path).parents}
    return sorted(folders - {"."})


def make_folders(folder: Path, paths: Iterable[str]) -> None:
    """There is a place in ``folder``, which is ours, for files with these paths."""
    for inner in folders_of(paths):
        (folder / inner).mkdir(mode=0o755, exist_ok=True)
