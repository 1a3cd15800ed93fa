"""A spool on this machine, or on a drive that is mounted here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datarun_daemon import disk
from datarun_daemon.client.errors import NameTaken, TransferFailed
from datarun_daemon.client.transport import Content
from datarun_daemon.core.model import BundleKind
from datarun_daemon.spool.layout import Spool as Layout


class LocalTransport:
    """Raises SpoolError: ``root`` is no spool."""

    look_again_seconds = 0.01
    follow_seconds = 0.1

    def __init__(self, root: Path) -> None:
        self.place = str(root)
        self._spool = Layout.open(root)

    def send(self, source: Path, kind: BundleKind, name: str) -> None:
        target = self._spool.incoming_of(kind) / name
        hidden = target.with_name(f".{name[:200]}.{os.getpid()}")
        try:
            if source.is_dir():
                _copy_folder(source, hidden)
            else:
                shutil.copyfile(source, hidden)
            # rename would replace a file or an empty folder of that name
            if os.path.lexists(target):
                raise NameTaken(f"{target} is there already; wait until it is taken, or give another name")
            disk.rename(hidden, target)
        except OSError as error:
            raise _failed(target, "could not be written", error) from error
        finally:
            disk.remove_tree(hidden)

    def read(self, path: Path, *, unless: str = "") -> Content | None:
        try:
            with (self._spool.root / path).open("rb") as file:
                status = os.fstat(file.fileno())
                version = f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"
                return None if version == unless else Content(file.read(), version)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failed(self._spool.root / path, "could not be read", error) from error

    @contextmanager
    def fetch(self, folder: Path) -> Iterator[Path]:
        yield self._spool.root / folder

    def remove(self, folder: Path) -> None:
        try:
            disk.remove_tree(self._spool.root / folder)
        except OSError as error:
            raise _failed(self._spool.root / folder, "could not be removed", error) from error

    def close(self) -> None:
        """There is nothing to close."""


def _failed(path: Path, what: str, error: OSError) -> TransferFailed:
    return TransferFailed(f"{path} {what} ({error.strerror or error})")


def _copy_folder(source: Path, hidden: Path) -> None:
    """What is in ``source``, readable and removable for whoever the incoming folder is shared with."""
    _copy_below(source, hidden, mode=hidden.parent.stat().st_mode & 0o777)


def _copy_below(source: Path, target: Path, *, mode: int) -> None:
    target.mkdir()
    for file in sorted(source.iterdir()):
        if file.is_dir():
            _copy_below(file, target / file.name, mode=mode)
        elif file.is_file():
            shutil.copyfile(file, target / file.name)
    target.chmod(mode)
