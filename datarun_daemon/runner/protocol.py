"""What the daemon and its pool say to each other: jobs and tasks in, reports out.

Values only; standard library only. In a report, seconds and bytes were measured outside the process
that ran the submission.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

#: the name of the environment used where none is named
DEFAULT_ENVIRONMENT = "default"


class Phase(StrEnum):
    """What a running fold is doing; its errors are the stage of that name."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Adoption(StrEnum):
    """What became of a fold that ran when an earlier daemon ended."""

    #: its result is complete
    FINISHED = "FINISHED"
    #: it still runs; the pool watches it from now on
    ALIVE = "ALIVE"
    #: no result, and nobody works on it
    LOST = "LOST"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one fold may use, its descendants included."""

    wall_soft_seconds: float
    wall_hard_seconds: float
    #: on top of the libraries and the dataset that it starts with
    memory_bytes: int
    #: alive at once, the fold's own process included
    processes: int
    #: of one file that it writes
    file_bytes: int
    #: of its standard output and error that are kept
    log_bytes: int
    #: of one array of predictions
    predictions_bytes: int


@dataclass(frozen=True, slots=True)
class FoldJob:
    """One attempt at one fold."""

    fold: str
    attempt: int
    #: folds of the same name share a keeper, so a name stands for one prepared folder until forgotten
    dataset: str
    prepared_folder: Path
    #: holds an ``<element>.py`` for each element; only read
    submission_folder: Path
    elements: tuple[str, ...]
    #: made by the pool; new with each attempt
    run_folder: Path
    #: typecode 'q'; positions in the training set, each in [0, n_train)
    train_is: array[int]
    limits: Limits
    #: JSON values that go into result.json as they are, where no key of ours is in the way
    facts: Mapping[str, object] = field(default_factory=dict)
    environment: str = DEFAULT_ENVIRONMENT
    #: typecode 'q'; validation rows of the training set, which only workflows of RAMP kits are told
    test_is: array[int] = field(default_factory=lambda: array("q"))


@dataclass(frozen=True, slots=True)
class PrepareTask:
    """Write the prepared folder that folds need: split a CSV file, or let a dataset's own code split its data."""

    dataset: str
    #: of the standard format; None where the dataset has code of its own
    data_file: Path | None
    #: names the labels; may be empty where the dataset has code of its own
    target_column: str
    elements: tuple[str, ...]
    #: share of the rows, in (0, 1); None where the dataset has code of its own
    held_out_test: float | None
    #: None where the dataset has code of its own
    random_state: int | None
    #: must not exist; is made by the task and not made durable
    prepared_folder: Path
    environment: str = DEFAULT_ENVIRONMENT
    #: the Python file with the dataset's own functions; empty for the standard format
    specific: str = ""
    #: names of the files that the dataset's own code may see; copies of them are where it works. Those of a RAMP kit
    #: may be paths; () are all that are there
    files: tuple[str, ...] = ()
    #: of a kit: files and folders that its folds may read, too
    fold_files: tuple[str, ...] = ()
    #: where these files are; only read
    dataset_folder: Path | None = None
    #: a task that takes longer is ended
    wall_seconds: float = 3600.0
    #: on top of the libraries; 0 for no limit
    memory_bytes: int = 0
    #: standard, custom or ramp; by default custom where there is a Python file, else standard
    format: str = ""

    def __post_init__(self) -> None:
        if not self.format:
            object.__setattr__(self, "format", "custom" if self.specific else "standard")


@dataclass(frozen=True, slots=True)
class GenerateFoldsTask:
    """Let a scikit-learn splitter choose the rows of folds."""

    #: the caller's own name for it, which comes back in the report
    key: str
    dataset: str
    prepared_folder: Path
    #: a class of sklearn.model_selection
    splitter: str
    parameters: Mapping[str, object]
    #: written by the task and not made durable: 1-D int64, per fold its training, then its validation rows
    indices_file: Path
    max_folds: int = 10_000
    environment: str = DEFAULT_ENVIRONMENT
    #: a task that takes longer is ended
    wall_seconds: float = 3600.0


@dataclass(frozen=True, slots=True)
class RunningFold:
    """A fold as the pool sees it now."""

    fold: str
    attempt: int
    dataset: str
    run_folder: Path
    phase: Phase
    #: time.monotonic() when it was handed over, or adopted
    started_monotonic: float
    #: its tree's, on top of what it started with; 0 until first told
    memory_bytes: int
    #: started by an earlier daemon
    adopted: bool
    #: it computes no more, and is being cleared up and written: it takes no slot
    closing: bool = False


@dataclass(frozen=True, slots=True)
class ServerReady:
    environment: str
    python: str
    packages: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ServerDied:
    """Its folds come as FoldVanished (or FoldFinished, if they were); it is started again by itself."""

    environment: str
    reason: str
    retry_seconds: float


@dataclass(frozen=True, slots=True)
class DatasetLoaded:
    dataset: str


@dataclass(frozen=True, slots=True)
class DatasetUnloadable:
    """Its folds come as FoldVanished right after."""

    dataset: str
    reason: str


@dataclass(frozen=True, slots=True)
class PhaseEnded:
    fold: str
    attempt: int
    phase: Phase
    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class FoldFinished:
    """``run_folder/out`` is complete, with result.json; no process of the fold is left."""

    fold: str
    attempt: int
    run_folder: Path


@dataclass(frozen=True, slots=True)
class FoldVanished:
    """There is no result and there won't be one; not the submission's fault."""

    fold: str
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class Prepared:
    dataset: str
    prepared_folder: Path
    n_train: int
    #: 0: a RAMP kit without a test set
    n_test: int
    #: every file of the folder, to be made durable
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class PrepareFailed:
    dataset: str
    prepared_folder: Path
    #: for the client, unless transient
    reason: str
    #: the process was lost; the same task may do better the next time
    transient: bool


@dataclass(frozen=True, slots=True)
class GeneratedFold:
    #: position of its first number in the indices file
    offset: int
    n_train: int
    n_test: int
    max_index: int


@dataclass(frozen=True, slots=True)
class FoldsGenerated:
    key: str
    folds: tuple[GeneratedFold, ...]


@dataclass(frozen=True, slots=True)
class FoldsNotGenerated:
    key: str
    #: for the client, unless transient
    reason: str
    transient: bool


Task = PrepareTask | GenerateFoldsTask
Report = (
    ServerReady
    | ServerDied
    | DatasetLoaded
    | DatasetUnloadable
    | PhaseEnded
    | FoldFinished
    | FoldVanished
    | Prepared
    | PrepareFailed
    | FoldsGenerated
    | FoldsNotGenerated
)
