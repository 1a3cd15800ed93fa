"""What can go wrong for a client: one class for each cause that somebody can act on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datarun_daemon.core.errors import DatarunError, Problem

if TYPE_CHECKING:
    from datarun_daemon.client.answers import FoldId, Receipt


class Rejected(DatarunError):
    """A bundle cannot be accepted as it is; the message lists every reason."""

    exit_code = 65

    def __init__(self, what: str, problems: Sequence[Problem], receipt: Receipt | None = None) -> None:
        #: everything that is wrong, each with its field, what was found and what is expected
        self.problems = list(problems)
        #: what the daemon wrote; None: it was found before anything was sent
        self.receipt = receipt
        count = f"{len(self.problems)} problem{'' if len(self.problems) == 1 else 's'}"
        where = "rejected" if receipt else "not sent"
        super().__init__("\n  ".join([f"{what} was {where}: {count}", *map(str, self.problems)]))


class NameTaken(DatarunError):
    """A bundle of this name lies in the incoming folder already."""

    exit_code = 73


class NoAnswer(DatarunError):
    """The daemon did not answer in time; a bundle that was sent stays and will be taken when a daemon runs."""

    exit_code = 75


class NotDone(DatarunError, TimeoutError):
    """Some folds had not ended when the time was over."""

    exit_code = 75

    def __init__(self, message: str, left: Sequence[FoldId], states: Mapping[FoldId, Any]) -> None:
        #: the folds that had not ended
        self.left = list(left)
        #: of all folds that were waited for; None: no view shows it yet
        self.states = dict(states)
        super().__init__(message)


class UnknownFolds(DatarunError):
    """There are no folds of these ids, or they are somebody else's."""

    exit_code = 66

    def __init__(
        self, message: str, folds: Sequence[FoldId], found: Mapping[FoldId, Any] | None = None
    ) -> None:
        #: the ids that are not known
        self.folds = list(folds)
        #: the predictions that were asked for together with these, and are there
        self.found = dict(found or {})
        super().__init__(message)


class Unreachable(DatarunError):
    """The machine of the spool does not let us in, or the connection broke."""

    exit_code = 69


class TransferFailed(DatarunError):
    """The connection stands, but a file could not be written, read or removed there."""

    exit_code = 74
