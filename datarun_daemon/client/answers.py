"""What the daemon answers, as values; and the row numbers of a fold, as a client has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datarun_daemon.core.model import BundleKind

#: of a submission or fold: 11 and "11" are the same
FoldId = int | str
#: a list, range or one-dimensional integer array
Rows = Sequence[int] | Any


@dataclass(frozen=True, slots=True)
class FoldRows:
    """One CV fold to run: rows of the training set to train on, and its validation rows."""

    id: FoldId
    train_is: Rows
    test_is: Rows
    #: H or L; None: that of the call
    priority: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the daemon wrote about a bundle that it accepted."""

    kind: BundleKind
    #: of the bundle: the receipt is receipts/KIND/NAME.yaml
    name: str
    #: everything that the receipt says
    content: Mapping[str, Any] = field(repr=False)

    @property
    def sequence(self) -> int:
        """The number of the catalog line that registered it; 0 if the receipt does not tell."""
        number = self.content.get("sequence")
        return number if isinstance(number, int) else 0


@dataclass(frozen=True, slots=True)
class DatasetReceipt(Receipt):
    """A dataset is registered. Its split, if one was asked for, is made next: ``Spool.datasets`` shows it."""

    dataset: str
    #: a number, counting from 1
    id: int


@dataclass(frozen=True, slots=True)
class FoldsReceipt(Receipt):
    """Folds are registered. ``name`` and ``content`` are of the first bundle, if they took several."""

    submission: FoldId
    #: as they were given; of ``cv`` as the daemon named them, and empty until the splitter has made them
    folds: tuple[FoldId, ...]
    #: what they cannot run without, and was not there; None: nothing
    waits_for: str | None = None
