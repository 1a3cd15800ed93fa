"""Row numbers of CV folds: read from what clients write, checked, and packed into one array a bundle.

Accepted are .npy, .csv and .json files, and in the manifest a YAML list or base64(zlib(int64)), which
is what the REST API took. What comes out is an ``array('q')`` without duplicates or negatives,
in the client's order. No numpy here: the daemon never imports it.
"""

from __future__ import annotations

import base64
import binascii
import sys
import zlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from datarun_daemon.core.errors import Problem, Rejection
from datarun_daemon.core.model import Priority
from datarun_daemon.spool.index_files import (
    BadIndices,
    header_of_npy,
    indices_in_csv,
    indices_in_json,
    indices_in_npy,
)
from datarun_daemon.spool.names import printable

#: the longest list of row numbers, and one more than the highest row number
MAX_INDICES = 20_000_000
MAX_ROWS = 100_000_000
MAX_TEXT_BYTES = 32 * 1024 * 1024
MAX_PROBLEMS = 50

#: beyond this, duplicates are looked for with a byte a row instead of a set
_SET_ENTRIES = 1_000_000
#: distinct int64 compress at best about 6 times; what swells more is a bomb
_ZLIB_RATIO = 32
_INDEX_SUFFIXES = (".npy", ".csv", ".json")


@dataclass(frozen=True, slots=True)
class IndexFile:
    """Row numbers that lie in a file of the bundle."""

    #: ends in .npy, .csv or .json, and is a safe file name
    name: str


@dataclass(frozen=True, slots=True)
class IndexValues:
    """Row numbers that stood in the manifest itself."""

    #: typecode 'q'; not empty, no duplicates, no negatives
    values: array[int]


IndexSource = IndexFile | IndexValues


@dataclass(frozen=True, slots=True)
class FoldPart:
    """One CV fold to run."""

    id: str
    train_is: IndexSource
    test_is: IndexSource
    #: the fold's own, else the bundle's, else LOW
    priority: Priority


@dataclass(frozen=True, slots=True)
class FoldIndices:
    """Where the row numbers of one fold lie in a packed array."""

    id: str
    priority: Priority
    #: of the first training row number, in elements; the validation row numbers follow the training ones
    offset: int
    n_train: int
    n_test: int
    #: the highest row number of either
    max_index: int


def is_index_file(text: str) -> bool:
    """A text in place of row numbers names a file (else it is base64, which has no dot)."""
    return text.endswith(_INDEX_SUFFIXES)


def indices_from_list(values: list[object]) -> IndexValues:
    """Row numbers from a list in the manifest. Raises BadIndices."""
    for position, value in enumerate(values):
        if type(value) is not int:
            raise BadIndices(f"{_shown(value)} at position {position}", "a list of row numbers (integers)")
    return IndexValues(_checked(array("q", values)))  # type: ignore[arg-type]  # all are int, and fit 64 bits


def indices_from_base64(text: str) -> IndexValues:
    """Row numbers from base64(zlib(raw little-endian int64)), as in the REST API. Raises BadIndices."""
    expected = "base64(zlib(int64)), a list of row numbers, or a file name that ends in .npy, .csv or .json"
    try:
        packed = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadIndices(f"the text '{printable(text, 40)}', which is not base64", expected) from error
    limit_bytes = 4096 + _ZLIB_RATIO * len(packed)
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(packed, limit_bytes)
    except zlib.error as error:
        raise BadIndices("base64 of what is not zlib data", expected) from error
    if inflater.unconsumed_tail:
        found = f"zlib data that swells to more than {_ZLIB_RATIO} times its size"
        raise BadIndices(found, "distinct row numbers, which do not compress so well")
    if not inflater.eof or inflater.unused_data:
        raise BadIndices("zlib data that is cut short or followed by more", expected)
    if len(raw) % 8:
        raise BadIndices(f"{len(raw)} bytes after inflating", "int64 row numbers: a multiple of 8 bytes")
    values = array("q", raw)
    if sys.byteorder == "big":
        values.byteswap()
    return IndexValues(_checked(values))


def read_index_file(path: Path) -> array[int]:
    """Row numbers in a .npy, .csv or .json file, in its order.

    Returns:
        typecode 'q', at least one, no duplicates, each in [0, MAX_ROWS).

    Raises:
        Rejection: anything else; its field is the file's name.
    """
    try:
        return _read(path)
    except BadIndices as bad:
        raise Rejection([Problem(path.name, bad.found, bad.expected)]) from bad


def _read(path: Path) -> array[int]:
    with path.open("rb") as file:
        size_bytes = file.seek(0, 2)
        file.seek(0)
        match path.suffix:
            case ".npy":
                limit_bytes = 8 * MAX_INDICES + 65_536
                read = indices_in_npy
            case ".csv":
                limit_bytes, read = MAX_TEXT_BYTES, indices_in_csv
            case _:
                limit_bytes, read = MAX_TEXT_BYTES, indices_in_json
        if size_bytes > limit_bytes:
            hint = "" if path.suffix == ".npy" else "; a .npy file holds more"
            raise BadIndices(f"{size_bytes} bytes", f"at most {limit_bytes} bytes{hint}")
        return _checked(read(file.read(limit_bytes)))


def pack_indices(folds: Iterable[FoldPart], folder: Path, target: Path) -> tuple[FoldIndices, ...]:
    """Writes the row numbers of all folds one after another into ``target``, a 1-D '<i8' .npy file.

    Index files are read below ``folder``, one fold at a time. ``target`` is neither fsynced nor
    written atomically: it must lie where nobody looks yet.

    Raises:
        Rejection: with all problems of all folds, as ``folds[2].train_is``; there is no target then.
        OSError: a file is missing or cannot be read or written.
    """
    packed: list[FoldIndices] = []
    problems: list[Problem] = []
    header_bytes = len(header_of_npy(0))
    offset = 0
    with target.open("wb") as file:
        file.seek(header_bytes)
        for number, fold in enumerate(folds):
            both = _rows_of_fold(fold, f"folds[{number}]", folder, problems)
            if both is None or problems:
                if len(problems) >= MAX_PROBLEMS:
                    break
                continue
            train, test = both
            _write_little_endian(train, file)
            _write_little_endian(test, file)
            highest = max(max(train), max(test))
            packed.append(FoldIndices(fold.id, fold.priority, offset, len(train), len(test), highest))
            offset += len(train) + len(test)
        file.seek(0)
        file.write(header_of_npy(offset))
    if problems:
        target.unlink()
        raise Rejection(problems)
    return tuple(packed)


def _rows_of_fold(
    fold: FoldPart, field: str, folder: Path, problems: list[Problem]
) -> tuple[array[int], array[int]] | None:
    rows: list[array[int]] = []
    for part, source in (("train_is", fold.train_is), ("test_is", fold.test_is)):
        if isinstance(source, IndexValues):
            rows.append(source.values)
            continue
        try:
            rows.append(_read(folder / source.name))
        except BadIndices as bad:
            found = f"in {printable(source.name)}: {bad.found}"
            problems.append(Problem(f"{field}.{part}", found, bad.expected))
    if len(rows) < 2:
        return None
    overlap = overlap_fault(*rows)
    if overlap is None:
        return rows[0], rows[1]
    problems.append(Problem(f"{field}.test_is", overlap.found, overlap.expected))
    return None


def unpack(packed: Path, fold: FoldIndices) -> tuple[array[int], array[int]]:
    """The training and the validation row numbers of one fold, from what ``pack_indices`` wrote."""
    train, test = array("q"), array("q")
    with packed.open("rb") as file:
        file.seek(len(header_of_npy(0)) + 8 * fold.offset)
        train.fromfile(file, fold.n_train)
        test.fromfile(file, fold.n_test)
    if sys.byteorder == "big":
        train.byteswap()
        test.byteswap()
    return train, test


def out_of_range(packed: Path, fold: FoldIndices, number: int, n_train_rows: int) -> Problem | None:
    """What is wrong with the bundle's fold ``number`` on a dataset of ``n_train_rows`` training rows."""
    if fold.max_index < n_train_rows:
        return None
    parts = zip(("train_is", "test_is"), unpack(packed, fold), strict=True)
    part, position = next((part, rows.index(fold.max_index)) for part, rows in parts if fold.max_index in rows)
    expected = f"row numbers of the training set, 0 to {n_train_rows - 1}"
    return Problem(f"folds[{number}].{part}[{position}]", f"row {fold.max_index}", expected)


def overlap_fault(train: array[int], test: array[int]) -> BadIndices | None:
    """The first row that is in both lists, which hold no duplicates themselves; None if there is none."""
    if min(len(train), len(test)) <= _SET_ENTRIES:
        shorter, longer = sorted((train, test), key=len)
        both = set(shorter).intersection(longer)
    else:
        trained = _marked(train)
        trained.extend(bytes(max(0, max(test) + 1 - len(trained))))
        both = {row for row in test if trained[row]}
    if not both:
        return None
    position, row = next((at, row) for at, row in enumerate(test) if row in both)
    found = f"row {row} at position {position}, which is in train_is too"
    return BadIndices(found, "validation rows that are not trained on")


def _checked(values: array[int]) -> array[int]:
    if not values:
        raise BadIndices("no row number", "at least one row number")
    if len(values) > MAX_INDICES:
        raise BadIndices(f"{len(values)} row numbers", f"at most {MAX_INDICES}")
    if min(values) < 0:
        position, row = next((at, row) for at, row in enumerate(values) if row < 0)
        raise BadIndices(f"{row} at position {position}", "row numbers, counted from 0")
    if max(values) >= MAX_ROWS:
        position, row = next((at, row) for at, row in enumerate(values) if row >= MAX_ROWS)
        raise BadIndices(f"{row} at position {position}", f"row numbers below {MAX_ROWS}")
    _refuse_duplicates(values)
    return values


def _refuse_duplicates(values: array[int]) -> None:
    if len(values) > _SET_ENTRIES or len(set(values)) < len(values):
        _marked(values)


def _marked(values: array[int]) -> bytearray:
    """1 at each row number, 0 elsewhere: MAX_ROWS bytes at most, where a set takes 60 an entry.

    Raises:
        BadIndices: a row number is there twice.
    """
    seen = bytearray(max(values) + 1)
    for position, row in enumerate(values):
        if seen[row]:
            found = f"row {row} twice, at positions {values.index(row)} and {position}"
            raise BadIndices(found, "each row once")
        seen[row] = 1
    return seen


def _write_little_endian(values: array[int], file: BinaryIO) -> None:
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    values.tofile(file)


def _shown(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f"the text '{printable(value, 40)}'"
        case list():
            return "a list"
        case dict():
            return "a mapping"
        case None:
            return "nothing"
        case _:
            return printable(str(value), 40)
