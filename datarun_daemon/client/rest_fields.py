"""What the REST API would say to fields that cannot be, and to bundles that the daemon rejects.

The words are those of Django REST framework where it had some, since clients look for them; what the
daemon says is told beside them.
"""

from __future__ import annotations

import re
from http import HTTPStatus

from datarun_daemon.client.errors import Rejected
from datarun_daemon.client.response import NO_FIELD, Response, invalid
from datarun_daemon.core.errors import Problem

NULL = "This field may not be null."
BLANK = "This field may not be blank."

PRIORITIES = frozenset({"l", "h", "low", "high"})
FORCES = frozenset({"submission", "submission_fold"})

#: fields of manifests, without list positions, to fields of the API
_FIELDS = {
    "data_file": "files",
    "extra_files": "files",
    "submission.id": "databoard_s",
    "submission.dataset": "raw_data",
    "submission.files": "files",
    "folds.id": "databoard_sf_id",
    "folds.train_is": "train_is",
    "folds.test_is": "test_is",
    "folds.priority": "priority",
    "folds": "list_submission_fold",
    "dataset": "raw_data_id",
    "action": "raw_data_id",
    **{name: name for name in ("name", "target_column", "workflow_elements", "held_out_test", "random_state")},
    **{name: name for name in ("train_is", "test_is", "priority", "force", "files")},
}
_DATASET_EXISTS = "RawData with this name already exists"
_FOLD_EXISTS = "SubmissionFold with this databoard sf id already exists."


def missing(**fields: object) -> dict[str, list[str]]:
    """An error for each field that is None or an empty text."""
    return {
        name: [NULL if value is None else BLANK]
        for name, value in fields.items()
        if value is None or (isinstance(value, str) and not value)
    }


def no_choice(value: object) -> list[str]:
    return [f'"{value}" is not a valid choice.']


def no_object(key: object) -> list[str]:
    return [f'Invalid pk "{key}" - object does not exist.']


def refusal(rejected: Rejected) -> Response:
    """403 if it was sent in somebody's name whom the spool does not let this account speak for; else 400."""
    for problem in rejected.problems:
        if problem.field == "user":
            return Response.of(HTTPStatus.FORBIDDEN, {"detail": f"username: {told(problem)}"})
    errors: dict[str, list[str]] = {}
    for problem in rejected.problems:
        field = _field(problem.field)
        errors.setdefault(field, []).extend(_messages(field, problem))
    return invalid(errors)


def is_there_already(rejected: Rejected) -> bool:
    """A dataset was refused since there is one of its name."""
    return any(_DATASET_EXISTS in problem.expected for problem in rejected.problems)


def is_split_already(rejected: Rejected) -> bool:
    """A split was refused since the dataset has, or waits for, the very same."""
    (first, *others) = rejected.problems
    same = "is split just so already" in first.expected or first.expected.endswith(f": {first.found}")
    return same and first.field == "action" and not others


def _field(path: str) -> str:
    plain = re.sub(r"\[\d+\]", "", path)
    if plain in _FIELDS:
        return _FIELDS[plain]
    # row numbers that are long travel in files of these names
    rows = re.fullmatch(r"(train_is|test_is)_\d+\.npy", plain)
    if rows:
        return rows[1]
    return "files" if plain.startswith("files[") or plain.endswith((".py", ".csv")) else NO_FIELD


def _messages(field: str, problem: Problem) -> list[str]:
    if field == "name" and _DATASET_EXISTS in problem.expected:
        return [f"{_DATASET_EXISTS}."]
    if field == "databoard_sf_id" and "is there already" in problem.expected:
        return [_FOLD_EXISTS, told(problem)]
    return [told(problem)]


def told(problem: Problem) -> str:
    """In one sentence."""
    return f"Found {problem.found}; expected {problem.expected}."

