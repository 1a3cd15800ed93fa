"""Manifests as values: what a client asks for, once everything in it is known to make sense."""

from __future__ import annotations

from dataclasses import dataclass, field

from datarun_daemon.core.model import Priority, Split
from datarun_daemon.spool.indices import FoldPart, IndexFile

MANIFEST_NAME = "manifest.yaml"
#: the format of RAMP kits, and the file that makes a folder one
RAMP = "ramp"
PROBLEM = "problem.py"

CvScalar = None | bool | int | float | str
CvValue = CvScalar | list[CvScalar]


@dataclass(frozen=True, slots=True)
class FileDigest:
    """What a file is once it is whole."""

    bytes: int
    #: 64 lower-case hexadecimal digits
    sha256: str


@dataclass(frozen=True, slots=True)
class DatasetManifest:
    """A dataset: one CSV file, or files with Python code that reads them, or a RAMP kit."""

    name: str
    #: "" only in the custom format and of kits
    target_column: str
    #: one of WORKFLOWS; () of kits
    workflow_elements: tuple[str, ...]
    #: "" only in the custom format and of kits
    data_file: str
    #: fits the format: ``own`` exactly in all but the standard one
    split: Split | None
    #: only of named files; of kits their paths in the bundle, with /
    files: dict[str, FileDigest] = field(default_factory=dict)
    #: empty in the standard format and of kits
    extra_files: tuple[str, ...] = ()
    #: the named file that defines how the data are read; "" in the standard format
    specific: str = ""
    #: standard, custom or ramp
    format: str = "standard"
    #: on whose behalf the bundle was dropped, by the word of who dropped it
    user: str | None = None
    #: of a kit: paths of files and folders that folds may read beside the code
    fold_files: tuple[str, ...] = ()

    @property
    def named_files(self) -> tuple[str, ...]:
        """The files that the bundle must hold beside its manifest, each once."""
        if self.format == RAMP:
            return tuple(dict.fromkeys((self.specific, *self.files)))
        return (self.data_file, *self.extra_files) if self.data_file else self.extra_files

    @property
    def takes_all(self) -> bool:
        """Beside the named files whatever else of a kit lies in the bundle: it does not declare what that is."""
        return self.format == RAMP and not self.files

    @property
    def digested(self) -> bool:
        """Every named file has its digest, so that readiness is certain."""
        return self.files.keys() >= set(self.named_files)


@dataclass(frozen=True, slots=True)
class SubmissionPart:
    """The submission of a fold bundle: with its files, or known by its id from an earlier bundle."""

    id: str
    #: None exactly when there are no files
    dataset: str | None
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CvSpec:
    """Folds to be made by a splitter of sklearn.model_selection, which is only looked up then."""

    class_name: str
    parameters: dict[str, CvValue]


@dataclass(frozen=True, slots=True)
class FoldsManifest:
    """A submission (or the id of one) and folds to run it on."""

    submission: SubmissionPart
    #: empty exactly when there is ``cv``; ids are unique
    folds: tuple[FoldPart, ...]
    cv: CvSpec | None
    priority: Priority
    #: of 'submission' (replace the files) and 'submission_fold' (run these folds again)
    force: frozenset[str]
    #: only of named files
    files: dict[str, FileDigest] = field(default_factory=dict)
    #: on whose behalf the bundle was dropped, by the word of who dropped it
    user: str | None = None

    @property
    def named_files(self) -> tuple[str, ...]:
        """The files that the bundle must hold beside its manifest, each once: submission, then indices."""
        sources = (source for fold in self.folds for source in (fold.train_is, fold.test_is))
        names = [*self.submission.files, *(s.name for s in sources if isinstance(s, IndexFile))]
        return tuple(dict.fromkeys(names))

    @property
    def digested(self) -> bool:
        """Every named file has its digest, so that readiness is certain."""
        return self.files.keys() >= set(self.named_files)


class _ManifestAlone:
    """A bundle that is only its manifest."""

    __slots__ = ()

    @property
    def named_files(self) -> tuple[str, ...]:
        return ()

    @property
    def files(self) -> dict[str, FileDigest]:
        return {}

    @property
    def digested(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class SplitRequest(_ManifestAlone):
    """Split a dataset that is here into a training and a held-out test set."""

    dataset: str
    split: Split
    #: split it again if it is split already
    force: bool = False
    user: str | None = None


@dataclass(frozen=True, slots=True)
class PredictionsRequest(_ManifestAlone):
    """Hand out results: of these folds, or each that is new."""

    #: ids, unique; empty exactly when ``new``
    folds: tuple[str, ...]
    new: bool
    #: only with ``new``: the name of the one dataset whose results are wanted
    dataset: str | None = None
    user: str | None = None


@dataclass(frozen=True, slots=True)
class CancelRequest(_ManifestAlone):
    """Do not run these folds, and stop those that run."""

    #: ids, unique; empty exactly when there is ``submission``
    folds: tuple[str, ...]
    #: all of its folds
    submission: str | None = None
    user: str | None = None


@dataclass(frozen=True, slots=True)
class PriorityRequest(_ManifestAlone):
    """Give these folds another priority."""

    #: ids, unique; empty exactly when there is ``submission``
    folds: tuple[str, ...]
    #: all of its folds
    submission: str | None
    priority: Priority
    user: str | None = None


@dataclass(frozen=True, slots=True)
class RerunRequest(_ManifestAlone):
    """Run these folds again, with their rows and their submission as they are."""

    #: ids, unique; empty exactly when there is ``submission``
    folds: tuple[str, ...]
    #: all of its folds
    submission: str | None = None
    user: str | None = None


RequestManifest = SplitRequest | PredictionsRequest | CancelRequest | PriorityRequest | RerunRequest
Manifest = DatasetManifest | FoldsManifest | RequestManifest
