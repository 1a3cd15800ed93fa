"""What a client needs from a spool, wherever that is: put a bundle, read a file, take a folder away.

Paths are relative to the spool's folder. A bundle appears under its name whole, or not at all.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from datarun_daemon.core.model import BundleKind
from datarun_daemon.spool.layout import Spool as Layout

#: paths of a spool, relative to its folder
PATHS = Layout(Path())


@dataclass(frozen=True, slots=True)
class Content:
    """What a file held at one time."""

    data: bytes
    #: changes whenever the file is written anew
    version: str


class Transport(Protocol):
    #: as its user names it, for messages
    place: str
    #: between two looks for what should come at once
    look_again_seconds: float
    #: between two looks at what changes for minutes or hours
    follow_seconds: float

    def send(self, source: Path, kind: BundleKind, name: str) -> None:
        """A copy of ``source``, a file or a folder with files and links to files, is incoming/KIND/NAME.

        Raises:
            NameTaken: there is one of that name already.
            TransferFailed, Unreachable: nothing is left of what was sent.
        """

    def read(self, path: Path, *, unless: str = "") -> Content | None:
        """The content of a file; None: there is no such file, or its version is still ``unless``."""

    def fetch(self, folder: Path) -> AbstractContextManager[Path]:
        """A folder of this machine with the same files, for as long as the context lasts."""

    def remove(self, folder: Path) -> None:
        """The folder is gone."""

    def close(self) -> None:
        """No connection is left open."""
