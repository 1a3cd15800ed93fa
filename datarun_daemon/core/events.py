"""What happened: one frozen value a fact, one line of the catalog each.

A line is a transaction: whatever has to be remembered together (a submission and all folds of
its bundle) is one event. Field names are what `jq` shows; renaming one is a change of format.
"""

from __future__ import annotations

from dataclasses import dataclass

from datarun_daemon.core.errors import Problem
from datarun_daemon.core.model import BundleId, Owner, Priority, Split, Stage


@dataclass(frozen=True, slots=True)
class DaemonStarted:
    version: str
    host: str


@dataclass(frozen=True, slots=True)
class DatasetAccepted:
    bundle: BundleId
    name: str
    #: the id that clients of the REST API expect; counts from 1
    number: int
    #: uid of who dropped it
    owner: Owner
    #: sha256 over the manifest and all files
    digest: str
    #: relative to the spool
    folder: str
    target_column: str
    workflow_elements: tuple[str, ...]
    #: "" if the dataset's own functions know theirs
    data_file: str
    split: Split | None = None
    #: beside data_file
    extra_files: tuple[str, ...] = ()
    #: which of the files has prepare_data and the like; "" in the standard format
    specific: str = ""
    #: standard, custom or ramp
    format: str = "standard"
    #: of a kit: files and folders that hold no labels, and that folds may read
    fold_files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SplitRequested:
    bundle: BundleId
    owner: Owner
    dataset: str
    split: Split
    #: it was split already: whatever did not end yet runs on the new split
    force: bool = False


@dataclass(frozen=True, slots=True)
class DatasetSplit:
    dataset: str
    split: Split
    #: rows
    n_train: int
    n_test: int
    #: relative to the spool
    prepared: str


@dataclass(frozen=True, slots=True)
class DatasetSplitFailed:
    dataset: str
    split: Split
    reason: str


@dataclass(frozen=True, slots=True)
class FoldRow:
    """One fold of a bundle; its row numbers are in the bundle's packed index file."""

    id: str
    priority: Priority
    #: where in the index file train_is begins, followed by test_is; in elements
    offset: int
    n_train: int
    n_test: int
    #: the largest row number in train_is and test_is
    max_index: int


@dataclass(frozen=True, slots=True)
class CvSpec:
    """A scikit-learn splitter that is to generate the folds."""

    class_name: str
    parameters: dict[str, object]


@dataclass(frozen=True, slots=True)
class FoldsAccepted:
    bundle: BundleId
    owner: Owner
    submission: str
    #: None if the bundle names only a submission, which may be yet to come
    dataset: str | None
    #: relative to the spool
    folder: str
    #: the submission's files, if the bundle brought them
    files: tuple[str, ...]
    #: sha256 over the submission's files; "" if the bundle brought none
    code_digest: str
    #: file of packed row numbers, relative to the spool; "" while a splitter is to make them
    indices: str
    folds: tuple[FoldRow, ...]
    priority: Priority
    force: tuple[str, ...] = ()
    cv: CvSpec | None = None


@dataclass(frozen=True, slots=True)
class FoldsGenerated:
    """The splitter of a bundle has made its folds."""

    ticket: int
    indices: str
    folds: tuple[FoldRow, ...]


@dataclass(frozen=True, slots=True)
class FoldsNotGenerated:
    ticket: int
    reason: str


@dataclass(frozen=True, slots=True)
class PredictionsRequested:
    bundle: BundleId
    owner: Owner
    #: results that are there count as delivered from here on
    folds: tuple[str, ...]
    #: ids that are not there, or not the owner's
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PredictionsDelivered:
    """The answer to a predictions request is complete beside the outbox; its rename follows this line."""

    ticket: int


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Folds that wait end at once; those that run are stopped, and end by FoldCancelled."""

    bundle: BundleId
    owner: Owner
    folds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PriorityRequested:
    """For folds that wait, and for further attempts at those that run."""

    bundle: BundleId
    owner: Owner
    folds: tuple[str, ...]
    priority: Priority


@dataclass(frozen=True, slots=True)
class RerunRequested:
    """The folds run anew, with the submission's files as they are now."""

    bundle: BundleId
    owner: Owner
    folds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BundleRejected:
    bundle: BundleId
    owner: Owner
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class BundlesCleared:
    """These bundles are gone from the incoming folders."""

    tickets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FoldStarted:
    fold: str
    attempt: int


@dataclass(frozen=True, slots=True)
class FoldTrained:
    fold: str
    attempt: int
    wall_seconds: float


@dataclass(frozen=True, slots=True)
class FoldValidated:
    fold: str
    attempt: int
    wall_seconds: float


@dataclass(frozen=True, slots=True)
class FoldTested:
    fold: str
    attempt: int
    train_seconds: float
    validation_seconds: float
    test_seconds: float


@dataclass(frozen=True, slots=True)
class FoldEndedUntested:
    """All is done that can be without a held-out test set."""

    fold: str
    attempt: int
    train_seconds: float
    validation_seconds: float


@dataclass(frozen=True, slots=True)
class FoldFailed:
    fold: str
    #: 0 if no process was ever started for it
    attempt: int
    stage: Stage
    message: str


@dataclass(frozen=True, slots=True)
class FoldCancelled:
    """A running attempt was stopped because its owner wanted so, or replaced the submission's files."""

    fold: str
    attempt: int


@dataclass(frozen=True, slots=True)
class FoldLost:
    """An attempt ended without a result, through no fault of the submission."""

    fold: str
    attempt: int
    reason: str
    #: it counts towards the attempts after which a fold is given up
    counted: bool = True


@dataclass(frozen=True, slots=True)
class FoldPublished:
    """The result is complete beside the outbox; its rename into place follows this line."""

    fold: str
    attempt: int


@dataclass(frozen=True, slots=True)
class FoldTaken:
    """The result was taken away from the outbox: it is no longer new."""

    fold: str
    attempt: int


Event = (
    DaemonStarted
    | DatasetAccepted
    | SplitRequested
    | PredictionsRequested
    | PredictionsDelivered
    | CancelRequested
    | PriorityRequested
    | RerunRequested
    | DatasetSplit
    | DatasetSplitFailed
    | FoldsAccepted
    | FoldsGenerated
    | FoldsNotGenerated
    | BundleRejected
    | BundlesCleared
    | FoldStarted
    | FoldTrained
    | FoldValidated
    | FoldTested
    | FoldEndedUntested
    | FoldFailed
    | FoldCancelled
    | FoldLost
    | FoldPublished
    | FoldTaken
)

#: facts that may be lost with the power without harm: a turn of only these is not fsynced
WITHOUT_CONSEQUENCE = (FoldTrained, FoldValidated, BundlesCleared, FoldTaken)
