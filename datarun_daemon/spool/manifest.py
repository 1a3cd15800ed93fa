"""Manifests as values: what a client asks for, once everything in it is known to make sense.

``parse_manifest`` either returns a value that needs no further checking by itself, or raises one
Rejection with everything that is wrong. What needs other files, or the catalog, is not checked here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from datarun_daemon.core.errors import Problem, Rejection
from datarun_daemon.core.model import BundleKind, Priority, StandardSplit
from datarun_daemon.spool.indices import FoldPart, IndexFile, IndexSource, IndexValues
from datarun_daemon.spool.manifest_fields import (
    ELEMENTS,
    EXPECTED,
    WORKFLOWS,
    DatasetFields,
    Digests,
    Fields,
    FoldFields,
    FoldsFields,
    SplitRequestFields,
    problems_and_fields,
    shown,
)
from datarun_daemon.spool.manifest_sense import dataset_faults, folds_faults
from datarun_daemon.spool.yaml_reading import MAX_PROBLEMS, parse_yaml

__all__ = [
    "ELEMENTS",
    "MANIFEST_NAME",
    "WORKFLOWS",
    "CvSpec",
    "CvValue",
    "DatasetManifest",
    "FileDigest",
    "FoldPart",
    "FoldsManifest",
    "IndexFile",
    "IndexSource",
    "IndexValues",
    "Manifest",
    "RequestManifest",
    "SplitRequest",
    "SubmissionPart",
    "parse_manifest",
]

MANIFEST_NAME = "manifest.yaml"

F = TypeVar("F", bound=Fields)

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
    """A dataset in the standard format: one CSV file."""

    name: str
    target_column: str
    #: one of WORKFLOWS
    workflow_elements: tuple[str, ...]
    data_file: str
    split: StandardSplit | None
    #: only of named files
    files: dict[str, FileDigest] = field(default_factory=dict)

    @property
    def named_files(self) -> tuple[str, ...]:
        """The files that the bundle must hold beside its manifest, each once."""
        return (self.data_file,)

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


@dataclass(frozen=True, slots=True)
class SplitRequest:
    """Split a dataset that is here into a training and a held-out test set."""

    dataset: str
    split: StandardSplit
    #: split it again if it is split already
    force: bool = False

    @property
    def named_files(self) -> tuple[str, ...]:
        return ()

    @property
    def files(self) -> dict[str, FileDigest]:
        return {}

    @property
    def digested(self) -> bool:
        return True


RequestManifest = SplitRequest
Manifest = DatasetManifest | FoldsManifest | RequestManifest


def parse_manifest(kind: BundleKind, raw: bytes) -> Manifest:
    """What the manifest of a bundle from incoming/``kind`` asks for.

    Raises:
        Rejection: with everything that is wrong, each with its field (``folds[2].train_is``).
    """
    value, problems = parse_yaml(raw, file_name=MANIFEST_NAME)
    if not isinstance(value, dict):
        unusable = Problem(MANIFEST_NAME, shown(value), "fields, each `name: value` on a line of its own")
        raise Rejection(problems or [unusable])
    match kind:
        case BundleKind.DATASETS:
            dataset = _fields(DatasetFields, value, problems, dataset_faults(value))
            return _dataset(dataset)
        case BundleKind.FOLDS:
            folds = _fields(FoldsFields, value, problems, folds_faults(value))
            return _folds(folds)
        case BundleKind.REQUESTS:
            return _request(value, problems)


def _fields(
    model: type[F], value: dict[str, object], unreadable: list[Problem], faults: Iterator[Problem]
) -> F:
    problems, fields = problems_and_fields(model, value)
    told = {problem.field for problem in unreadable}
    problems = [*unreadable, *(p for p in problems if not _is_about(p.field, told))]
    told.update(problem.field for problem in problems)
    problems.extend(p for p in faults if p.field not in told)
    if len(problems) > MAX_PROBLEMS:
        more = Problem(MANIFEST_NAME, f"{len(problems) - MAX_PROBLEMS} more problems", "none")
        problems = [*problems[:MAX_PROBLEMS], more]
    if problems or fields is None:
        raise Rejection(problems)
    return fields


def _is_about(field: str, told: set[str]) -> bool:
    """The field, or one that it holds, has been told to be unreadable."""
    return field in told or any(path.startswith((f"{field}.", f"{field}[")) for path in told)


def _dataset(fields: DatasetFields) -> DatasetManifest:
    return DatasetManifest(
        name=fields.name,
        target_column=fields.target_column,
        workflow_elements=fields.workflow_elements,
        data_file=fields.data_file,
        split=fields.split.split() if fields.split else None,
        files=_digests(fields.files),
    )


def _folds(fields: FoldsFields) -> FoldsManifest:
    priority = fields.priority or Priority.LOW
    submission = fields.submission
    return FoldsManifest(
        submission=SubmissionPart(submission.id, submission.dataset, tuple(submission.files or ())),
        folds=tuple(_fold(fold, priority) for fold in fields.folds or ()),
        cv=_cv(fields.cv) if fields.cv else None,
        priority=priority,
        force=fields.force,
        files=_digests(fields.files),
    )


def _request(value: dict[str, object], problems: list[Problem]) -> RequestManifest:
    action = value.get("action")
    if isinstance(action, str) and action != "split":
        # What the fields of another action should be is not known here.
        raise Rejection([*problems, Problem("action", shown(action), EXPECTED["action"])])
    fields = _fields(SplitRequestFields, value, problems, iter(()))
    return SplitRequest(fields.dataset, fields.split(), fields.force)


def _fold(fields: FoldFields, priority: Priority) -> FoldPart:
    return FoldPart(fields.id, fields.train_is, fields.test_is, fields.priority or priority)


def _cv(fields: dict[str, CvValue]) -> CvSpec:
    return CvSpec(str(fields["class"]), {name: value for name, value in fields.items() if name != "class"})


def _digests(fields: Digests) -> dict[str, FileDigest]:
    return {name: FileDigest(digest.bytes, digest.sha256) for name, digest in (fields or {}).items()}
