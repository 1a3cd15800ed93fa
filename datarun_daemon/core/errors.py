"""Causes that somebody can act on: a client's mistakes are values, ours are exceptions.

A :class:`Problem` is one thing wrong with a bundle; a :class:`Rejection` carries all of them at
once, so that a client mends a manifest in one go. Every :class:`DatarunError` ends a command
with its own exit code.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a bundle, told so that its sender can mend it."""

    #: where: a dotted path into the manifest (``folds[2].train_is``), or a file name
    field: str
    #: what was there, shortened, as text
    found: str
    #: what should be there, and if not obvious what to do
    expected: str

    def __str__(self) -> str:
        return f"{self.field}: found {self.found}; expected {self.expected}"


class Rejection(Exception):
    """A bundle that cannot be accepted as it is, with every problem that was found."""

    def __init__(self, problems: list[Problem]) -> None:
        if not problems:
            raise ValueError("a rejection needs at least one problem")
        self.problems = problems
        super().__init__("; ".join(map(str, problems)))


class DatarunError(Exception):
    """Something of ours went wrong; the message says what, where, and what to do."""

    #: the exit status of a command that ends with this error (sysexits.h where one fits)
    exit_code = 70


class ConfigError(DatarunError):
    """The configuration file cannot be used."""

    exit_code = 78


class SpoolError(DatarunError):
    """The folder is not a spool, or not one we may use."""

    exit_code = 72


class SpoolBusy(DatarunError):
    """Another daemon holds this spool."""

    exit_code = 75


class CatalogCorrupt(DatarunError):
    """The catalog is damaged somewhere else than in a torn last line."""

    exit_code = 65


class DiskFailed(DatarunError):
    """A write could not be made durable; what we believe may not be on disk, so we end.

    A failed fsync is never retried: the kernel may have dropped the dirty pages already, and a
    second fsync would report success for data that is gone.
    """

    exit_code = 74
