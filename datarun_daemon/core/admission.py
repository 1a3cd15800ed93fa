"""May this bundle in? Its manifest was well-formed; here it meets what is already registered.

Each function returns every problem at once, and none if the fact it leads to may be applied.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from datarun_daemon.core.errors import Problem
from datarun_daemon.core.events import FoldRow
from datarun_daemon.core.ledger import Ledger
from datarun_daemon.core.model import Owner, Split, SplitState, may_manage
from datarun_daemon.core.records import Dataset

#: results of datasets lie in the outbox beside these folders
_RESERVED = {
    "requests": "outbox/requests/ is where answers to requests appear",
    "no-dataset": "outbox/no-dataset/ is for folds whose dataset is not known",
}


def admit_dataset(ledger: Ledger, *, name: str, owner: Owner) -> list[Problem]:
    if reason := _RESERVED.get(name):
        return [Problem("name", repr(name), f"another name: {reason}")]
    known = ledger.datasets.get(name)
    if known is None:
        return []
    if known.split_state is SplitState.FAILED and may_manage(owner, known.owner):
        return []  # no fold ever saw the data that could not be split; this is the mended one
    # clients of the REST API look for these very words
    expected = "a new name (RawData with this name already exists; a split request changes its split)"
    return [Problem("name", repr(name), expected)]


def admit_split(ledger: Ledger, *, dataset: str, split: Split, force: bool, owner: Owner) -> list[Problem]:
    known = ledger.datasets.get(dataset)
    if known is None:
        there = ", ".join(sorted(ledger.datasets)[:10]) or "none yet"
        return [Problem("dataset", repr(dataset), f"the name of a registered dataset (there are: {there})")]
    if not may_manage(owner, known.owner):
        return [Problem("dataset", repr(dataset), "one of your own datasets; this one belongs to another user")]
    if split.own and not known.specific:
        expected = "held_out_test and random_state (action: split), since the dataset is one CSV file without code"
        return [Problem("action", "custom_split", expected)]
    if known.specific and not split.own:
        expected = f"action: custom_split, since the prepare_data of the dataset's {known.specific} splits it"
        return [Problem("action", "split", expected)]
    if known.split_state in (SplitState.UNSPLIT, SplitState.FAILED):
        return []
    if known.split_state is SplitState.WAITING:
        expected = f"to wait until {dataset} is split as it was asked before: {known.split}"
        return [Problem("action", str(split), expected)]
    if force:
        return []
    if known.split == split:
        return [Problem("action", "split", f"a dataset that is not split yet; {dataset} is split just so already")]
    expected = (
        f"the split that {dataset} has already ({known.split}), or `force: true`: then its folds that have not ended "
        "run on the new split, and results that are there stay as they are"
    )
    return [Problem("force" if split.own else "held_out_test", str(split), expected)]


def admit_own_folds(
    ledger: Ledger, *, folds: Sequence[str], submission: str | None, owner: Owner
) -> tuple[list[Problem], list[str]]:
    """Problems of a request about folds, and the ids of the folds that it is about."""
    if submission is not None:
        known = ledger.submissions.get(submission)
        if known is None or not may_manage(owner, known.owner):
            return [Problem("submission", repr(submission), "the id of one of your submissions")], []
        return [], [fold.id for fold in ledger.folds.values() if fold.submission == submission]
    problems = []
    for number, fold_id in enumerate(folds):
        fold = ledger.folds.get(fold_id)
        if fold is None:
            problems.append(Problem(f"folds[{number}]", repr(fold_id), "the id of a registered fold"))
        elif not may_manage(owner, fold.owner):
            expected = "the id of a fold of your own; this one belongs to another user"
            problems.append(Problem(f"folds[{number}]", repr(fold_id), expected))
    return problems, list(folds)


def admit_folds(
    ledger: Ledger,
    *,
    submission: str,
    dataset: str | None,
    files: Sequence[str],
    code_digest: str,
    folds: Sequence[FoldRow],
    force: Sequence[str],
    owner: Owner,
) -> list[Problem]:
    """Problems of a fold bundle.

    A dataset or submission that is not there is none: the folds wait for it.
    """
    problems = _of_submission(ledger, submission, dataset, files, code_digest, force, owner)
    known = ledger.submissions.get(submission)
    data = ledger.datasets.get(known.dataset if known else dataset or "")
    if data and files:
        problems += _of_elements(data, files)
    for number, row in enumerate(folds):
        problems += _of_fold(ledger, f"folds[{number}]", row, submission, force, owner)
    return problems


def training_rows(ledger: Ledger, submission: str, dataset: str | None) -> int | None:
    """How many rows the training set has that folds of this submission number; None if it is not split yet."""
    known = ledger.submissions.get(submission)
    data = ledger.datasets.get(known.dataset if known else dataset or "")
    return data.n_train if data and data.split_state is SplitState.SPLIT else None


def brings_known_code(ledger: Ledger, submission: str, code_digest: str) -> bool:
    """The bundle's files are, byte for byte, those that the submission already has."""
    known = ledger.submissions.get(submission)
    return known is not None and known.code_digest == code_digest


def missing_elements(submission_files: Iterable[str], workflow_elements: Iterable[str]) -> tuple[str, ...]:
    """The files that a submission lacks for a workflow, in its order: ``classifier.py`` for classifier."""
    there = set(submission_files)
    return tuple(name for name in (f"{element}.py" for element in workflow_elements) if name not in there)


def _of_submission(
    ledger: Ledger,
    submission: str,
    dataset: str | None,
    files: Sequence[str],
    code_digest: str,
    force: Sequence[str],
    owner: Owner,
) -> list[Problem]:
    known = ledger.submissions.get(submission)
    if known is None:
        return []
    problems = []
    if not may_manage(owner, known.owner):
        expected = "the id of a submission of your own, or a new id; this one belongs to another user"
        return [Problem("submission.id", repr(submission), expected)]
    if dataset is not None and dataset != known.dataset:
        expected = f"{known.dataset!r}, to which submission {submission} belongs; a new id for another dataset"
        problems.append(Problem("submission.dataset", repr(dataset), expected))
    if files and code_digest != known.code_digest and "submission" not in force:
        expected = (
            f"the same files as before, since submission {submission} is already there; "
            "`force: submission, submission_fold` replaces them"
        )
        problems.append(Problem("submission.files", "other files under the same id", expected))
    return problems


def _of_elements(data: Dataset, files: Sequence[str]) -> list[Problem]:
    missing = missing_elements(files, data.workflow_elements)
    if not missing:
        return []
    expected = f"also {', '.join(missing)}: dataset {data.name} has the workflow elements "
    return [Problem("submission.files", ", ".join(files), expected + ", ".join(data.workflow_elements))]


def _of_fold(
    ledger: Ledger, field: str, row: FoldRow, submission: str, force: Sequence[str], owner: Owner
) -> list[Problem]:
    old = ledger.folds.get(row.id)
    if old is None:
        return []
    if not may_manage(owner, old.owner):
        return [Problem(f"{field}.id", repr(row.id), "a new id; this one belongs to a fold of another user")]
    if old.submission != submission:
        expected = f"a new id; fold {row.id} is one of submission {old.submission}"
        return [Problem(f"{field}.id", repr(row.id), expected)]
    if "submission_fold" not in force:
        expected = f"a new id; fold {row.id} is there already ({old.state}); `force: submission_fold` runs it again"
        return [Problem(f"{field}.id", repr(row.id), expected)]
    return []

