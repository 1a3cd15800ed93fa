"""The words of the field as values: datasets (RawData), submissions, folds, and their states."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FoldState(StrEnum):
    """Where a fold is on the straight line.

    Clients of the REST API see RUNNING as TODO, CANCELLED as ERROR and VALIDATED_ONLY as VALIDATED.
    """

    TODO = "TODO"
    RUNNING = "RUNNING"
    TRAINED = "TRAINED"
    VALIDATED = "VALIDATED"
    #: an end: the dataset has no held-out test set
    VALIDATED_ONLY = "VALIDATED_ONLY"
    TESTED = "TESTED"
    ERROR = "ERROR"
    CANCELLED = "CANCELLED"

    @property
    def ended(self) -> bool:
        return self in _ENDED

    @property
    def in_motion(self) -> bool:
        """A process works on it."""
        return self in _IN_MOTION


_ENDED = frozenset({FoldState.TESTED, FoldState.VALIDATED_ONLY, FoldState.ERROR, FoldState.CANCELLED})
_IN_MOTION = frozenset({FoldState.RUNNING, FoldState.TRAINED, FoldState.VALIDATED})


class Stage(StrEnum):
    """The part of a fold in which an error happened."""

    DATA = "data"
    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Priority(StrEnum):
    """H runs before L; each has its own slots and limits."""

    HIGH = "H"
    LOW = "L"


class SplitState(StrEnum):
    """A dataset runs folds only once it is split into a training and a held-out test set."""

    #: no split was asked for yet
    UNSPLIT = "UNSPLIT"
    #: asked for, not done yet
    WAITING = "WAITING"
    SPLIT = "SPLIT"
    FAILED = "FAILED"


#: a uid; or "UID/USER" for a user on whose behalf a program with the shared account UID drops bundles
Owner = int | str

_ROOT = 0


def may_manage(owner: Owner, of: Owner) -> bool:
    """Whether ``owner`` may force, cancel or prioritise what is ``of``'s: its own, its users', and root all."""
    return owner in (of, _ROOT) or (isinstance(of, str) and of.partition("/")[0] == str(owner))


def uid_of(owner: Owner) -> int:
    """The account whose files these are."""
    return owner if isinstance(owner, int) else int(owner.partition("/")[0])


def json_id(text: str) -> int | str:
    """An id as JSON shows it: whole numbers of up to 18 digits are numbers, as clients of the REST API expect."""
    return int(text) if len(text) <= 18 and text.isdigit() and str(int(text)) == text else text


class BundleKind(StrEnum):
    """The three incoming folders, by their names."""

    DATASETS = "datasets"
    FOLDS = "folds"
    REQUESTS = "requests"


@dataclass(frozen=True, slots=True)
class Split:
    """Of a dataset: ``train_test_split(rows, test_size=held_out_test, random_state=random_state)``, or its own."""

    #: share of the rows that become the held-out test set, in (0, 1); None: the dataset's own prepare_data decides
    held_out_test: float | None
    random_state: int = 42

    @property
    def own(self) -> bool:
        return self.held_out_test is None

    def __str__(self) -> str:
        if self.own:
            return "by its own prepare_data"
        return f"held_out_test {self.held_out_test}, random_state {self.random_state}"


@dataclass(frozen=True, slots=True)
class BundleId:
    """One drop of one bundle: which folder, which name, and our number for it."""

    kind: BundleKind
    name: str
    #: counts up over the life of a spool; names the bundle's folder in the store
    ticket: int
    #: of names, sizes and times of what was there: tells, after a crash, whether what still
    #: lies in the incoming folder is what this ticket already took
    signature: str
