"""What the ledger holds: one record a dataset, submission and fold, changed only by the facts that it applies."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from datarun_daemon.core import events as e
from datarun_daemon.core.model import BundleId, FoldState, Owner, Priority, Split, SplitState, Stage


@dataclass(slots=True)
class Dataset:
    name: str
    number: int
    owner: Owner
    digest: str
    folder: str
    target_column: str
    workflow_elements: tuple[str, ...]
    data_file: str
    #: beside data_file
    extra_files: tuple[str, ...]
    #: which of the files has prepare_data and the like; "" in the standard format
    specific: str
    #: standard, custom or ramp
    format: str
    #: files and folders that folds may read beside the code
    fold_files: tuple[str, ...]
    accepted_at: float
    split: Split | None
    split_state: SplitState
    #: the bundle that asked for the split
    asked_by: BundleId
    #: why the split failed
    reason: str | None = None
    n_train: int = 0
    n_test: int = 0
    #: folder of the split data, relative to the spool
    prepared: str = ""


@dataclass(slots=True)
class Submission:
    id: str
    dataset: str
    owner: Owner
    folder: str
    files: tuple[str, ...]
    code_digest: str


@dataclass(slots=True)
class Fold:
    id: str
    submission: str
    #: "" as long as its submission is not there
    dataset: str
    owner: Owner
    priority: Priority
    state: FoldState
    #: sequence number of the line that accepted it: first come, first served
    sequence: int
    accepted_at: float
    indices: str
    offset: int
    n_train: int
    n_test: int
    max_index: int
    #: the last one started, or its end without a start; 0 if none
    attempt: int = 0
    #: attempts that ended without a result
    lost: int = 0
    #: why the attempt that runs is to end as CANCELLED
    cancelling: str | None = None
    #: of the code that the last attempt started with
    code_digest: str = ""
    #: of the last attempt; 0 if none
    started_at: float = 0.0
    ended_at: float = 0.0
    stage: Stage | None = None
    message: str | None = None
    #: its result waits in the outbox
    new: bool = False
    published: bool = False


@dataclass(slots=True)
class Queue:
    """The folds of one owner and priority that could run now, in order of arrival."""

    folds: OrderedDict[str, Fold] = field(default_factory=OrderedDict)
    #: starts from behind the head since it became the head
    passed_over: int = 0

    def head(self) -> Fold:
        return next(iter(self.folds.values()))


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A bundle whose line is written, and which may still lie in its incoming folder."""

    bundle: BundleId
    #: what is wrong with it, if it was rejected
    rejected: e.BundleRejected | None


@dataclass(slots=True)
class Delivery:
    """A predictions request that is still to be answered."""

    bundle: BundleId
    owner: Owner
    #: fold, attempt (None: there is no result yet), and whether nobody had it before
    results: tuple[tuple[str, int | None, bool], ...]
    #: ids that are not there, or not the owner's
    unknown: tuple[str, ...]
