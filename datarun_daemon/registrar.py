"""From what the inbox found to facts: meets each manifest with the ledger, and words the receipt.

The ledger is read here, never changed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from datarun_daemon.accounts import Accounts
from datarun_daemon.core import admission
from datarun_daemon.core import events as e
from datarun_daemon.core.errors import Problem
from datarun_daemon.core.ledger import Ledger
from datarun_daemon.core.model import Owner, SplitState
from datarun_daemon.core.records import Dataset
from datarun_daemon.requests import Request, admit_request
from datarun_daemon.spool.findings import Claimed
from datarun_daemon.spool.indices import out_of_range
from datarun_daemon.spool.manifest_values import DatasetManifest, FoldsManifest


@dataclass(frozen=True, slots=True)
class Registered:
    """The fact that a bundle becomes, and what its receipt says."""

    fact: e.DatasetAccepted | e.FoldsAccepted | Request
    receipt: dict[str, object]


def register(ledger: Ledger, claimed: Claimed, root: Path, accounts: Accounts) -> Registered | list[Problem]:
    """The fact that a claimed bundle of the spool at ``root`` becomes, or every reason why it becomes none."""
    owner = accounts.owner(claimed.owner_uid, claimed.manifest.user)
    if isinstance(owner, Problem):
        return [owner]
    match claimed.manifest:
        case DatasetManifest() as manifest:
            return _dataset(ledger, claimed, manifest, owner)
        case FoldsManifest() as manifest:
            return _folds(ledger, claimed, manifest, root, owner)
        case request:
            answer = admit_request(ledger, claimed.bundle, request, owner)
            return answer if isinstance(answer, list) else Registered(*answer)


def waits_for(ledger: Ledger, submission: str) -> str:
    """What a TODO fold of this submission waits for, in a few words."""
    known = ledger.submissions.get(submission)
    if known is None:
        return f"submission {submission} (not here yet)"
    dataset = ledger.datasets.get(known.dataset)
    if dataset is None:
        return f"dataset {known.dataset} (not here yet)"
    if dataset.split_state is SplitState.UNSPLIT:
        return f"dataset {dataset.name} to be split (a split request is needed)"
    if dataset.split_state is SplitState.WAITING:
        return f"dataset {dataset.name} to be split"
    return "a slot"


def generated_id(submission: str, number: int) -> str:
    """The id of the fold number ``number``, from 0, that a splitter made."""
    return f"{submission}-{number}"


def split_receipt(dataset: Dataset) -> dict[str, object]:
    """What the receipt of the bundle that asked for a split says once it is done, or failed."""
    receipt: dict[str, object] = {"dataset": dataset.name, "id": dataset.number}
    if dataset.split_state is SplitState.FAILED:
        return {**receipt, "split": "failed", "reason": dataset.reason}
    return {**receipt, "split": "done", "n_train": dataset.n_train, "n_test": dataset.n_test}


def _dataset(
    ledger: Ledger, claimed: Claimed, manifest: DatasetManifest, owner: Owner
) -> Registered | list[Problem]:
    if problems := admission.admit_dataset(ledger, name=manifest.name, owner=owner):
        return problems
    assert claimed.folder is not None
    known = ledger.datasets.get(manifest.name)
    number = known.number if known else len(ledger.datasets) + 1
    fact = e.DatasetAccepted(
        claimed.bundle, manifest.name, number, owner, claimed.digest, claimed.folder,
        manifest.target_column, manifest.workflow_elements, manifest.data_file, manifest.split,
        manifest.extra_files, manifest.specific, manifest.format,
        manifest.fold_files,
    )  # fmt: skip
    split = "waiting" if manifest.split else "not asked for; drop a split request into incoming/requests/"
    return Registered(fact, {"dataset": manifest.name, "id": number, "split": split})


def _folds(
    ledger: Ledger, claimed: Claimed, manifest: FoldsManifest, root: Path, owner: Owner
) -> Registered | list[Problem]:
    submission = manifest.submission
    rows = tuple(
        e.FoldRow(fold.id, fold.priority, fold.offset, fold.n_train, fold.n_test, fold.max_index)
        for fold in claimed.fold_indices
    )
    code = _code_digest(claimed, submission.files)
    problems = admission.admit_folds(
        ledger,
        submission=submission.id,
        dataset=submission.dataset,
        files=submission.files,
        code_digest=code,
        folds=rows,
        force=sorted(manifest.force),
        owner=owner,
    )
    n_train = admission.training_rows(ledger, submission.id, submission.dataset)
    if n_train is not None:
        faults = (
            out_of_range(root / claimed.indices, fold, number, n_train)
            for number, fold in enumerate(claimed.fold_indices)
        )
        problems += [fault for fault in faults if fault]
    if problems:
        return problems
    assert claimed.folder is not None
    cv = e.CvSpec(manifest.cv.class_name, dict(manifest.cv.parameters)) if manifest.cv else None
    # the same files again change nothing: what runs from the first copy goes on doing so
    known = admission.brings_known_code(ledger, submission.id, code)
    fact = e.FoldsAccepted(
        claimed.bundle, owner, submission.id, submission.dataset, claimed.folder,
        () if known else submission.files, "" if known else code, claimed.indices, rows,
        manifest.priority, tuple(sorted(manifest.force)), cv,
    )  # fmt: skip
    receipt: dict[str, object] = {"submission": submission.id, "folds": [row.id for row in rows]}
    if cv:
        receipt["folds"] = f"to be generated by {cv.class_name}; their ids will be listed here"
    if waits := _not_here_yet(ledger, submission.id, submission.dataset):
        receipt["waits_for"] = waits
    return Registered(fact, receipt)


def _not_here_yet(ledger: Ledger, submission: str, dataset: str | None) -> str | None:
    known = ledger.submissions.get(submission)
    if known is None and dataset is None:
        return f"submission {submission} (not here yet)"
    name = known.dataset if known else dataset
    if name not in ledger.datasets:
        return f"dataset {name} (not here yet)"
    return None


def _code_digest(claimed: Claimed, files: tuple[str, ...]) -> str:
    """sha256 over the names and digests of a submission's files; "" if there are none."""
    if not files:
        return ""
    lines = sorted(f"{claimed.files[name].sha256}  {name}\n" for name in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
