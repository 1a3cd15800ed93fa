"""Single fields of manifests: what each kind of value must be, and what a client is told if it is not.

A check returns the value as it is used from then on, or raises the error that ``fault`` makes.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any

from pydantic import PlainValidator
from pydantic_core import PydanticCustomError

from datarun_daemon.core.model import Priority
from datarun_daemon.spool.index_files import BadIndices
from datarun_daemon.spool.indices import (
    IndexFile,
    IndexSource,
    indices_from_base64,
    indices_from_list,
    is_index_file,
)
from datarun_daemon.spool.names import file_name_fault, file_path_fault, id_fault, printable

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

WORKFLOW_WORDS = "[feature_extractor,] classifier [, calibrator], or [feature_extractor,] regressor"
ID_WORDS = "an integer, or 1-100 letters, digits, '.', '_', '-' beginning with a letter or digit"
COLUMN_WORDS = "the name of the column to predict, as text"
ROWS_WORDS = "a list of row numbers, base64(zlib(int64)), or the name of a .npy, .csv or .json file"
PRIORITY_WORDS = "H or L (or high, low)"
FORCE_WORDS = "nothing, submission_fold, submission, or 'submission, submission_fold'"
SEED_WORDS = "an integer from 0 to 4294967295"
USER_WORDS = "a user's name: 1-100 letters, digits, '.', '_', '-', '@' beginning with a letter or digit"
SHARE_WORDS = "a number between 0 and 1: the share of the rows that is held out for the test"
DIGEST_WORDS = "{bytes: ..., sha256: ...} of that file, as `datarun pack` writes it"


def fault(found: str, expected: str = "", *, under: str = "") -> PydanticCustomError:
    """An error in our words; without ``expected`` the field's entry in EXPECTED is told."""
    return PydanticCustomError("datarun", "wrong", {"found": found, "expected": expected, "under": under})


def checked_id(value: object) -> str:
    """The id as text: 11 is '11'."""
    text = str(value) if type(value) is int else value
    if not isinstance(text, str):
        hint = "; put it in quotes if it is a name" if isinstance(value, bool | float) else ""
        raise fault(shown(value), f"{ID_WORDS}{hint}" if hint else "")
    unfit = id_fault(text)
    if unfit:
        raise fault(f"{shown(value)}, which {unfit}")
    return text


def _file_name(value: object) -> str:
    if not isinstance(value, str):
        raise fault(shown(value))
    unfit = file_name_fault(value)
    if unfit:
        raise fault(f"{shown(value)}, which {unfit}", "the plain name of a file in the bundle")
    return value


def _file_path(value: object) -> str:
    if not isinstance(value, str):
        raise fault(shown(value))
    unfit = file_path_fault(value)
    if unfit:
        raise fault(f"{shown(value)}, which {unfit}", "the path of a file in the bundle, as data/train.csv")
    return value


def _format(value: object) -> str | None:
    if value is not None and value != "ramp":
        raise fault(shown(value))
    return value


def _user(value: object) -> str:
    text = str(value) if type(value) is int else value
    if not isinstance(text, str) or not re.fullmatch("[A-Za-z0-9][A-Za-z0-9._@-]{0,99}", text):
        raise fault(shown(value))
    return text


def _column(value: object) -> str:
    if not isinstance(value, str):
        hint = "" if value is None else "; put it in quotes"
        raise fault(shown(value), f"{COLUMN_WORDS}{hint}")
    if not value.strip() or len(value) > 200 or not value.isprintable():
        raise fault(shown(value), "1-200 visible characters")
    return value


def _elements(value: object) -> tuple[str, ...]:
    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, list) or not listed or not all(isinstance(name, str) for name in listed):
        raise fault(shown(value))
    names = tuple(name.strip() for name in listed)
    for name in names:
        if name not in ELEMENTS:
            raise fault(f"the element {shown(name)}", f"{WORKFLOW_WORDS}{meant(name, ELEMENTS)}")
    if names not in WORKFLOWS:
        raise fault(f"the sequence {printable(', '.join(names))}")
    return names


def _priority(value: object) -> Priority | None:
    match value.lower() if isinstance(value, str) else value:
        case "h" | "high":
            return Priority.HIGH
        case "l" | "low":
            return Priority.LOW
        case None:
            return None
    raise fault(shown(value))


def _another_priority(value: object) -> Priority:
    priority = _priority(value)
    if priority is None:
        raise fault(shown(value))
    return priority


def _force(value: object) -> frozenset[str]:
    if value is None:
        return frozenset()
    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(word, str) for word in listed):
        raise fault(shown(value))
    words = frozenset(word.strip() for word in listed)
    for word in sorted(words - FORCES):
        raise fault(shown(word), f"{FORCE_WORDS}{meant(word, FORCES)}")
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
        raise fault(bad.found, bad.expected) from bad
    raise fault(shown(value))


def _share(value: object) -> float:
    if type(value) not in (int, float) or not isinstance(value, int | float) or not 0 < value < 1:
        raise fault(shown(value))
    return float(value)


def _whole(low: int, high: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        if type(value) is not int or not low <= value <= high:
            raise fault(shown(value))
        return value

    return check


def _sha256(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch("[0-9a-fA-F]{64}", value):
        raise fault(shown(value))
    return value.lower()


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise fault(shown(value))
    return value


def _cv(value: object) -> dict[str, Any]:
    """A mapping with a ``class`` and parameters that JSON can carry."""
    if not isinstance(value, dict):
        raise fault(shown(value))
    name = value.get("class")
    if not isinstance(name, str) or not re.fullmatch("[A-Za-z][A-Za-z0-9_]{0,63}", name):
        found = f"{shown(name)} as `class`"
        raise fault(found, "the name of a splitter of sklearn.model_selection as `class`")
    for parameter, given in value.items():
        items = given if isinstance(given, list) else [given]
        if not parameter.isidentifier() or not all(_is_scalar(item) for item in items):
            found = f"{shown(given)} as `{printable(parameter, 40)}`"
            raise fault(found, "parameters of the splitter: numbers, texts, true, false, or lists of those")
    return value


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def meant(word: str, known: Iterable[str]) -> str:
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


Id = Annotated[str, PlainValidator(checked_id)]
FileName = Annotated[str, PlainValidator(_file_name)]
FilePath = Annotated[str, PlainValidator(_file_path)]
Format = Annotated[str | None, PlainValidator(_format)]
#: an IndexSource; Any, because pydantic evaluates what Python 3.11 cannot: array[int]
Rows = Annotated[Any, PlainValidator(_rows)]
PriorityWord = Annotated[Priority | None, PlainValidator(_priority)]
#: not to be left empty
AnotherPriority = Annotated[Priority, PlainValidator(_another_priority)]
#: None stands for the dataset's own split; nobody can write it as a share
Share = Annotated[float | None, PlainValidator(_share)]
Seed = Annotated[int, PlainValidator(_whole(0, 2**32 - 1))]
FileSize = Annotated[int, PlainValidator(_whole(0, 2**50))]
Sha256 = Annotated[str, PlainValidator(_sha256)]
Column = Annotated[str, PlainValidator(_column)]
Elements = Annotated[tuple[str, ...], PlainValidator(_elements)]
Force = Annotated[frozenset[str], PlainValidator(_force)]
Cv = Annotated[dict[str, Any], PlainValidator(_cv)]
Flag = Annotated[bool, PlainValidator(_flag)]
User = Annotated[str, PlainValidator(_user)]
