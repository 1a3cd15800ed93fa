"""Reading manifests, strictly.

``parse_manifest`` either returns a value that needs no further checking by itself, or raises one
Rejection with everything that is wrong. What needs other files, or the catalog, is not checked here.
"""

from __future__ import annotations

from datarun_daemon.core.errors import Problem, Rejection
from datarun_daemon.core.model import BundleKind, Priority
from datarun_daemon.spool.field_checks import shown
from datarun_daemon.spool.indices import FoldPart
from datarun_daemon.spool.manifest_fields import DatasetFields, Digests, FoldFields, FoldsFields, fields_of
from datarun_daemon.spool.manifest_kits import is_kit, kit_of
from datarun_daemon.spool.manifest_requests import request_of
from datarun_daemon.spool.manifest_sense import dataset_faults, folds_faults, specific_file
from datarun_daemon.spool.manifest_values import (
    MANIFEST_NAME,
    CancelRequest,
    CvSpec,
    CvValue,
    DatasetManifest,
    FileDigest,
    FoldsManifest,
    Manifest,
    PredictionsRequest,
    PriorityRequest,
    RequestManifest,
    RerunRequest,
    SplitRequest,
    SubmissionPart,
)
from datarun_daemon.spool.yaml_reading import parse_yaml

__all__ = [
    "MANIFEST_NAME",
    "CancelRequest",
    "CvSpec",
    "DatasetManifest",
    "FileDigest",
    "FoldsManifest",
    "Manifest",
    "PredictionsRequest",
    "PriorityRequest",
    "RequestManifest",
    "RerunRequest",
    "SplitRequest",
    "SubmissionPart",
    "parse_manifest",
]


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
        case BundleKind.DATASETS if is_kit(value):
            return kit_of(value, problems)
        case BundleKind.DATASETS:
            dataset = fields_of(DatasetFields, value, problems, dataset_faults(value))
            return _dataset(dataset)
        case BundleKind.FOLDS:
            folds = fields_of(FoldsFields, value, problems, folds_faults(value))
            return _folds(folds)
        case BundleKind.REQUESTS:
            return request_of(value, problems)


def _dataset(fields: DatasetFields) -> DatasetManifest:
    data_file, extra_files = fields.data_file or "", tuple(fields.extra_files or ())
    specific = specific_file((data_file, *extra_files))
    return DatasetManifest(
        name=fields.name,
        target_column=fields.target_column or "",
        workflow_elements=fields.workflow_elements,
        data_file=data_file,
        split=fields.split.split() if fields.split else None,
        files=_digests(fields.files),
        extra_files=extra_files,
        specific=specific,
        format="custom" if specific else "standard",
        user=fields.user,
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
        user=fields.user,
    )


def _fold(fields: FoldFields, priority: Priority) -> FoldPart:
    return FoldPart(fields.id, fields.train_is, fields.test_is, fields.priority or priority)


def _cv(fields: dict[str, CvValue]) -> CvSpec:
    return CvSpec(str(fields["class"]), {name: value for name, value in fields.items() if name != "class"})


def _digests(fields: Digests) -> dict[str, FileDigest]:
    return {name: FileDigest(digest.bytes, digest.sha256) for name, digest in (fields or {}).items()}
