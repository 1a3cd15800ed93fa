"""The form of manifests: each field by itself, strictly, and everything wrong with them in plain words.

``problems_and_fields`` never stops at the first error. What a field may hold is said once, in
``EXPECTED``; pydantic walks the structure and collects, its own words never reach a client.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainValidator, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from datarun_daemon.core.errors import Problem
from datarun_daemon.core.model import Priority, StandardSplit
from datarun_daemon.spool.index_files import BadIndices
from datarun_daemon.spool.indices import (
    IndexFile,
    IndexSource,
    IndexValues,
    indices_from_base64,
    indices_from_list,
    is_index_file,
    overlap_fault,
)
from datarun_daemon.spool.names import field_within, file_name_fault, id_fault, printable

ELEMENTS = ("feature_extractor", "classifier", "calibrator", "regressor")
WORKFLOWS = frozenset(
    {
        ("classifier",),
        ("classifier", "calibrator"),
        ("regressor",),
        ("feature_extractor", "classifier"),
        ("feature_extractor", "classifier", "calibrator"),
        ("feature_extractor", "regressor"),
    }
)
FORCES = frozenset({"submission", "submission_fold"})

_WORKFLOW_WORDS = "[feature_extractor,] classifier [, calibrator], or [feature_extractor,] regressor"
_ID_WORDS = "an integer, or 1-100 letters, digits, '.', '_', '-' beginning with a letter or digit"
_ROWS_WORDS = "a list of row numbers, base64(zlib(int64)), or the name of a .npy, .csv or .json file"
_PRIORITY_WORDS = "H or L (or high, low)"
_FORCE_WORDS = "nothing, submission_fold, submission, or 'submission, submission_fold'"
_SHARE_WORDS = "a number between 0 and 1: the share of the rows that is held out for the test"
_DIGEST_WORDS = "{bytes: ..., sha256: ...} of that file, as `datarun pack` writes it"
#: what each field should hold; list positions and file names are left out of the path
EXPECTED = {
    "name": f"the dataset's name: {_ID_WORDS}",
    "target_column": "the name of the column to predict, as text",
    "workflow_elements": f"the workflow: {_WORKFLOW_WORDS}",
    "data_file": "the name of the CSV file in the bundle",
    "split": "{held_out_test: 0.5, random_state: 42}, or nothing",
    "split.held_out_test": _SHARE_WORDS,
    "split.random_state": "an integer from 0 to 4294967295",
    "files": "a mapping from file names to their {bytes, sha256}, as `datarun pack` writes it",
    "files[]": _DIGEST_WORDS,
    "files[].bytes": "the file's size in bytes: an integer, not negative",
    "files[].sha256": "64 hexadecimal digits",
    "submission": "{id: ..., dataset: ..., files: [...]}, or {id: ...} if the submission is already here",
    "submission.id": f"the submission's id: {_ID_WORDS}",
    "submission.dataset": f"a dataset's name: {_ID_WORDS}",
    "submission.files": "a list of the submission's file names, e.g. [classifier.py]",
    "submission.files[]": "a file name",
    "folds": "a list of folds, each {id: ..., train_is: ..., test_is: ...}",
    "folds[]": "a fold: {id: ..., train_is: ..., test_is: ...}",
    "folds[].id": f"the fold's id: {_ID_WORDS}",
    "folds[].train_is": _ROWS_WORDS,
    "folds[].test_is": _ROWS_WORDS,
    "folds[].priority": _PRIORITY_WORDS,
    "priority": _PRIORITY_WORDS,
    "force": _FORCE_WORDS,
    "cv": "a scikit-learn splitter and its parameters, e.g. {class: ShuffleSplit, n_splits: 8}",
    "action": "split, the one action that this version carries out",
    "dataset": f"a dataset's name: {_ID_WORDS}",
    "held_out_test": _SHARE_WORDS,
    "random_state": "an integer from 0 to 4294967295",
    "extra_files": "nothing: this version reads the standard format only (one CSV file)",
}


def _fault(found: str, expected: str = "", *, under: str = "") -> PydanticCustomError:
    """An error in our words; without ``expected`` the field's entry in EXPECTED is told."""
    return PydanticCustomError("datarun", "wrong", {"found": found, "expected": expected, "under": under})


def _id(value: object) -> str:
    text = str(value) if type(value) is int else value
    if not isinstance(text, str):
        hint = "; put it in quotes if it is a name" if isinstance(value, bool | float) else ""
        raise _fault(shown(value), f"{_ID_WORDS}{hint}" if hint else "")
    fault = id_fault(text)
    if fault:
        raise _fault(f"{shown(value)}, which {fault}")
    return text


def _file_name(value: object) -> str:
    if not isinstance(value, str):
        raise _fault(shown(value))
    fault = file_name_fault(value)
    if fault:
        raise _fault(f"{shown(value)}, which {fault}", "the plain name of a file in the bundle")
    return value


def _column(value: object) -> str:
    if not isinstance(value, str):
        hint = "" if value is None else "; put it in quotes"
        raise _fault(shown(value), f"{EXPECTED['target_column']}{hint}")
    if not value.strip() or len(value) > 200 or not value.isprintable():
        raise _fault(shown(value), "1-200 visible characters")
    return value


def _elements(value: object) -> tuple[str, ...]:
    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, list) or not listed or not all(isinstance(name, str) for name in listed):
        raise _fault(shown(value))
    names = tuple(name.strip() for name in listed)
    for name in names:
        if name not in ELEMENTS:
            raise _fault(f"the element {shown(name)}", f"{_WORKFLOW_WORDS}{_meant(name, ELEMENTS)}")
    if names not in WORKFLOWS:
        raise _fault(f"the sequence {printable(', '.join(names))}")
    return names


def _priority(value: object) -> Priority | None:
    match value.lower() if isinstance(value, str) else value:
        case "h" | "high":
            return Priority.HIGH
        case "l" | "low":
            return Priority.LOW
        case None:
            return None
    raise _fault(shown(value))


def _force(value: object) -> frozenset[str]:
    if value is None:
        return frozenset()
    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(word, str) for word in listed):
        raise _fault(shown(value))
    words = frozenset(word.strip() for word in listed)
    for word in sorted(words - FORCES):
        raise _fault(shown(word), f"{_FORCE_WORDS}{_meant(word, FORCES)}")
    return words


def _rows(value: object) -> IndexSource:
    try:
        if isinstance(value, list):
            return indices_from_list(value)
        if isinstance(value, str) and is_index_file(value):
            return IndexFile(_file_name(value))
        if isinstance(value, str):
            return indices_from_base64(value)
    except BadIndices as bad:
        raise _fault(bad.found, bad.expected) from bad
    raise _fault(shown(value))


def _share(value: object) -> float:
    if type(value) not in (int, float) or not isinstance(value, int | float) or not 0 < value < 1:
        raise _fault(shown(value))
    return float(value)


def _whole(low: int, high: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        if type(value) is not int or not low <= value <= high:
            raise _fault(shown(value))
        return value

    return check


def _sha256(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch("[0-9a-fA-F]{64}", value):
        raise _fault(shown(value))
    return value.lower()


def _standard(value: object) -> object:
    if isinstance(value, str):
        expected = "{held_out_test: ..., random_state: ...}: this version reads the standard format only"
        raise _fault(shown(value), expected)
    return value


def _no_extra_files(value: object) -> None:
    if value is not None and value != []:
        raise _fault(shown(value))


def _action(value: object) -> str:
    if value != "split":
        raise _fault(shown(value))
    return "split"


def _again(value: object) -> bool:
    if not isinstance(value, bool):
        raise _fault(shown(value), "true to split again what is split already, or false")
    return value


def _cv(value: object) -> dict[str, Any]:
    """A mapping with a ``class`` and parameters that JSON can carry."""
    if not isinstance(value, dict):
        raise _fault(shown(value))
    name = value.get("class")
    if not isinstance(name, str) or not re.fullmatch("[A-Za-z][A-Za-z0-9_]{0,63}", name):
        found = f"{shown(name)} as `class`"
        raise _fault(found, "the name of a splitter of sklearn.model_selection as `class`")
    for parameter, given in value.items():
        items = given if isinstance(given, list) else [given]
        if not parameter.isidentifier() or not all(_is_scalar(item) for item in items):
            found = f"{shown(given)} as `{printable(parameter, 40)}`"
            raise _fault(found, "parameters of the splitter: numbers, texts, true, false, or lists of those")
    return value


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


Id = Annotated[str, PlainValidator(_id)]
FileName = Annotated[str, PlainValidator(_file_name)]
#: an IndexSource; Any, because pydantic evaluates what Python 3.11 cannot: array[int]
Rows = Annotated[Any, PlainValidator(_rows)]
PriorityWord = Annotated[Priority | None, PlainValidator(_priority)]
Share = Annotated[float, PlainValidator(_share)]
Seed = Annotated[int, PlainValidator(_whole(0, 2**32 - 1))]


class Fields(BaseModel):
    """A mapping whose fields are these and no others."""

    model_config = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)


class DigestFields(Fields):
    bytes: Annotated[int, PlainValidator(_whole(0, 2**50))]
    sha256: Annotated[str, PlainValidator(_sha256)]


class SplitFields(Fields):
    held_out_test: Share
    random_state: Seed = 42

    def split(self) -> StandardSplit:
        return StandardSplit(self.held_out_test, self.random_state)


Digests = dict[FileName, DigestFields] | None


class DatasetFields(Fields):
    name: Id
    target_column: Annotated[str, PlainValidator(_column)]
    workflow_elements: Annotated[tuple[str, ...], PlainValidator(_elements)]
    data_file: FileName
    extra_files: Annotated[None, PlainValidator(_no_extra_files)] = None
    split: Annotated[SplitFields | None, BeforeValidator(_standard)] = None
    files: Digests = None


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
                raise _fault(overlap.found, overlap.expected, under="test_is")
        return self


class FoldsFields(Fields):
    submission: SubmissionFields
    folds: list[FoldFields] | None = None
    cv: Annotated[dict[str, Any], PlainValidator(_cv)] | None = None
    priority: PriorityWord = None
    force: Annotated[frozenset[str], PlainValidator(_force)] = frozenset()
    files: Digests = None


class SplitRequestFields(SplitFields):
    action: Annotated[str, PlainValidator(_action)]
    dataset: Id
    force: Annotated[bool, PlainValidator(_again)] = False


F = TypeVar("F", bound=Fields)


def problems_and_fields(model: type[F], value: Mapping[str, object]) -> tuple[list[Problem], F | None]:
    """The fields of a manifest, or everything that is wrong with them one by one."""
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
            return Problem(field, context["found"], context["expected"] or _expected(place))
        case "missing":
            return Problem(field, "nothing", _expected(place))
        case "extra_forbidden":
            known = _siblings(place, model)
            expected = f"only {', '.join(known)} here{_meant(str(place[-1]), known)}"
            return Problem(field, "a field that is not known", expected)
        case _:
            return Problem(field, shown(detail["input"]), _expected(place))


def _dotted(place: list[int | str]) -> str:
    path = ""
    for part in place:
        path = f"{path}[{part}]" if isinstance(part, int) else field_within(path, part)
    return path


def _pattern(place: list[int | str]) -> str:
    """The path as a key of EXPECTED: without list positions and file names."""
    names = tuple(f".{part}" if isinstance(part, str) else "[]" for part in place)
    if place[0] == "files" and len(place) > 1:
        names = ("files[]", *(f".{part}" for part in place[2:]))
    return "".join(names).removeprefix(".")


def _expected(place: list[int | str]) -> str:
    return EXPECTED.get(_pattern(place), "something else")


def _siblings(place: list[int | str], model: type[Fields]) -> list[str]:
    if len(place) == 1:
        return list(model.model_fields)
    within = f"{_pattern(place[:-1])}."
    return [key.removeprefix(within) for key in EXPECTED if key.startswith(within) and key[-1] != "]"]


def _meant(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word[:100].lower(), list(known), 1)
    return f" (did you mean {close[0]}?)" if close else ""


def shown(value: object) -> str:
    """A value as a client may recognise it: short, on one line."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            return f"'{printable(value, 60)}'" if value else "an empty text"
        case list():
            return f"a list of {len(value)}" if value else "an empty list"
        case dict():
            return f"a mapping of {printable(', '.join(value), 60)}" if value else "an empty mapping"
        case _:
            return printable(str(value), 60)
