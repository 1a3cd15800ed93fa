"""The form of manifests: each field by itself, strictly, and everything wrong with them in plain words.

``fields_of`` never stops at the first error. What a field may hold is said once, in
``EXPECTED``; pydantic walks the structure and collects, its own words never reach a client.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails

from datarun_daemon.core.errors import Problem, Rejection
from datarun_daemon.core.model import Split
from datarun_daemon.spool.field_checks import (
    COLUMN_WORDS,
    DIGEST_WORDS,
    FORCE_WORDS,
    ID_WORDS,
    PRIORITY_WORDS,
    ROWS_WORDS,
    SEED_WORDS,
    SHARE_WORDS,
    USER_WORDS,
    WORKFLOW_WORDS,
    Column,
    Cv,
    Elements,
    FileName,
    FileSize,
    Force,
    Format,
    Id,
    PriorityWord,
    Rows,
    Seed,
    Sha256,
    Share,
    User,
    fault,
    meant,
    shown,
)
from datarun_daemon.spool.indices import IndexValues, overlap_fault
from datarun_daemon.spool.manifest_values import MANIFEST_NAME
from datarun_daemon.spool.names import field_within
from datarun_daemon.spool.yaml_reading import MAX_PROBLEMS

#: what each field should hold; list positions and file names are left out of the path
EXPECTED = {
    "name": f"the dataset's name: {ID_WORDS}",
    "format": "ramp, of a RAMP kit; nothing of any other dataset",
    "target_column": COLUMN_WORDS,
    "workflow_elements": f"the workflow: {WORKFLOW_WORDS}",
    "data_file": "the name of the CSV file in the bundle, e.g. iris.csv",
    "extra_files": "a list of the dataset's other files, one of them a Python file, e.g. [specific.py, light.csv]",
    "extra_files[]": "a file name",
    "split": "{held_out_test: 0.5, random_state: 42}, custom if a Python file of the dataset splits it, or nothing",
    "split.held_out_test": SHARE_WORDS,
    "split.random_state": SEED_WORDS,
    "files": "a mapping from file names to their {bytes, sha256}, as `datarun pack` writes it",
    "files[]": DIGEST_WORDS,
    "files[].bytes": "the file's size in bytes: an integer, not negative",
    "files[].sha256": "64 hexadecimal digits",
    "submission": "{id: ..., dataset: ..., files: [...]}, or {id: ...} if the submission is already here",
    "submission.id": f"the submission's id: {ID_WORDS}",
    "submission.dataset": f"a dataset's name: {ID_WORDS}",
    "submission.files": "a list of the submission's file names, e.g. [classifier.py]",
    "submission.files[]": "a file name",
    "folds": "a list of folds, each {id: ..., train_is: ..., test_is: ...}",
    "folds[]": "a fold: {id: ..., train_is: ..., test_is: ...}",
    "folds[].id": f"the fold's id: {ID_WORDS}",
    "folds[].train_is": ROWS_WORDS,
    "folds[].test_is": ROWS_WORDS,
    "folds[].priority": PRIORITY_WORDS,
    "priority": PRIORITY_WORDS,
    "force": FORCE_WORDS,
    "cv": "a scikit-learn splitter and its parameters, e.g. {class: ShuffleSplit, n_splits: 8}",
    "user": USER_WORDS,
}


class Fields(BaseModel):
    """A mapping whose fields are these and no others."""

    model_config = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)
    #: what its fields, and those within them, should hold; by paths without list positions and file names
    words: ClassVar[Mapping[str, str]] = EXPECTED


class DigestFields(Fields):
    bytes: FileSize
    sha256: Sha256


class SplitFields(Fields):
    held_out_test: Share
    random_state: Seed = 42

    def split(self) -> Split:
        return Split(self.held_out_test, self.random_state)


def _or_custom(value: object) -> object:
    if isinstance(value, str):
        if value != "custom":
            raise fault(shown(value))
        return SplitFields.model_construct(held_out_test=None)
    return value


Digests = dict[FileName, DigestFields] | None


class DatasetFields(Fields):
    name: Id
    #: never ramp: then it is a kit, which has other fields
    format: Format = None
    target_column: Column | None = None
    workflow_elements: Elements
    data_file: FileName | None = None
    extra_files: list[FileName] | None = None
    split: Annotated[SplitFields | None, BeforeValidator(_or_custom)] = None
    files: Digests = None
    user: User | None = None


class SubmissionFields(Fields):
    id: Id
    dataset: Id | None = None
    files: list[FileName] | None = None


class FoldFields(Fields):
    id: Id
    train_is: Rows
    test_is: Rows
    priority: PriorityWord = None

    @model_validator(mode="after")
    def no_row_is_in_both(self) -> FoldFields:
        if isinstance(self.train_is, IndexValues) and isinstance(self.test_is, IndexValues):
            overlap = overlap_fault(self.train_is.values, self.test_is.values)
            if overlap:
                raise fault(overlap.found, overlap.expected, under="test_is")
        return self


class FoldsFields(Fields):
    submission: SubmissionFields
    folds: list[FoldFields] | None = None
    cv: Cv | None = None
    priority: PriorityWord = None
    force: Force = frozenset()
    files: Digests = None
    user: User | None = None


F = TypeVar("F", bound=Fields)


def fields_of(
    model: type[F], value: Mapping[str, object], unreadable: Iterable[Problem], faults: Iterable[Problem]
) -> F:
    """The fields of a manifest that was read as ``value``.

    Raises:
        Rejection: with what could not be read at all, then what is wrong with fields one by one, then
            those of the ``faults`` whose field was not told of yet.
    """
    unread = list(unreadable)
    problems, fields = _problems_and_fields(model, value)
    told = {problem.field for problem in unread}
    problems = [*unread, *(p for p in problems if not _is_about(p.field, told))]
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


def _problems_and_fields(model: type[F], value: Mapping[str, object]) -> tuple[list[Problem], F | None]:
    try:
        return [], model.model_validate(value)
    except ValidationError as error:
        return [_problem(detail, model) for detail in error.errors(include_url=False)], None


def _problem(detail: ErrorDetails, model: type[Fields]) -> Problem:
    place = [part for part in detail["loc"] if part != "[key]"]
    field = _dotted(place)
    match detail["type"]:
        case "datarun":
            context = detail["ctx"]
            field = f"{field}.{context['under']}" if context["under"] else field
            return Problem(field, context["found"], context["expected"] or _expected(place, model))
        case "missing":
            return Problem(field, "nothing", _expected(place, model))
        case "extra_forbidden":
            known = _siblings(place, model)
            expected = f"only {', '.join(known)} here{meant(str(place[-1]), known)}"
            return Problem(field, "a field that is not known", expected)
        case _:
            return Problem(field, shown(detail["input"]), _expected(place, model))


def _dotted(place: list[int | str]) -> str:
    path = ""
    for part in place:
        path = f"{path}[{part}]" if isinstance(part, int) else field_within(path, part)
    return path


def _pattern(place: list[int | str]) -> str:
    """The path as a key of a model's words: without list positions and file names."""
    names = tuple(f".{part}" if isinstance(part, str) else "[]" for part in place)
    if place[0] == "files" and len(place) > 1:
        names = ("files[]", *(f".{part}" for part in place[2:]))
    return "".join(names).removeprefix(".")


def _expected(place: list[int | str], model: type[Fields]) -> str:
    return model.words.get(_pattern(place), "something else")


def _siblings(place: list[int | str], model: type[Fields]) -> list[str]:
    if len(place) == 1:
        return list(model.model_fields)
    within = f"{_pattern(place[:-1])}."
    return [key.removeprefix(within) for key in model.words if key.startswith(within) and key[-1] != "]"]
