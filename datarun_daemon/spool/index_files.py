"""The three kinds of index file as integers: .npy, .csv, .json; strict, and without numpy.

Only the form is checked here (integers, one-dimensional, whole); which integers may be row numbers
is the matter of ``indices``.
"""

from __future__ import annotations

import ast
import json
import re
import struct
import sys
from array import array

from datarun_daemon.spool.names import printable

_MAGIC = b"\x93NUMPY"
_MAX_HEADER_BYTES = 4096
#: of a .npy we write: as numpy pads it, and long enough for any shape
_HEADER_BYTES = 128
_TYPECODES = {"i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q"}
_NAMES_OF_KINDS = {"f": "floats", "c": "complex numbers", "b": "a boolean mask", "O": "Python objects"}
_NPY = "a 1-D .npy array of integers"
_NPY_HINTS = {
    "f": f"{_NPY}; write it with .astype('int64')",
    "b": f"{_NPY}; of a mask, write numpy.flatnonzero(mask)",
    "O": f"{_NPY}; write it with numpy.asarray(rows, dtype='int64')",
}
_CSV = "integers, one a line (after a header or not) or all in one line separated by commas"
_JSON = "one JSON list of row numbers"
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
_CLEAN_COLUMN = re.compile(r"(?:[0-9]{1,18}+\s++)*+")
_FLAT_JSON = re.compile(r"\s*+\[[-0-9,\s]*+\]\s*+")
_FREE_JSON_CHARACTERS = 100_000


class BadIndices(Exception):
    """Row numbers that cannot be used, in the words of a Problem; its reader knows the field."""

    def __init__(self, found: str, expected: str) -> None:
        self.found = found
        self.expected = expected
        super().__init__(f"found {found}; expected {expected}")


def header_of_npy(count: int) -> bytes:
    """What a 1-D .npy file of ``count`` little-endian int64 begins with; the same number of bytes for any."""
    fields = f"{{'descr': '<i8', 'fortran_order': False, 'shape': ({count},), }}".encode()
    fields = fields.ljust(_HEADER_BYTES - len(_MAGIC) - 4 - 1) + b"\n"
    return _MAGIC + b"\x01\x00" + struct.pack("<H", len(fields)) + fields


def indices_in_npy(raw: bytes) -> array[int]:
    """The integers of a 1-D .npy array of any integer type and byte order. Raises BadIndices."""
    kind, count, start = _npy_layout(raw)
    item_bytes = int(kind[2:])
    size_bytes = count * item_bytes
    if len(raw) - start != size_bytes:
        found = f"{len(raw) - start} bytes of data where the header announces {size_bytes}"
        raise BadIndices(found, f"{_NPY}, whole")
    values = array(_TYPECODES[kind[1:]], raw[start:])
    if item_bytes > 1 and (kind[0] == "<") != (sys.byteorder == "little"):
        values.byteswap()
    if values.typecode == "q":
        return values
    try:
        return array("q", values)
    except OverflowError as error:
        raise BadIndices("an unsigned number beyond 64 bits with sign", "row numbers") from error


def _npy_layout(raw: bytes) -> tuple[str, int, int]:
    """The type as '<i8', how many there are, and where in ``raw`` they begin."""
    if not raw.startswith(_MAGIC):
        raise BadIndices("a file that does not begin as .npy files do", _NPY)
    length_bytes = 2 if raw[6:7] == b"\x01" else 4
    start = 8 + length_bytes
    if raw[6:8] not in (b"\x01\x00", b"\x02\x00", b"\x03\x00") or len(raw) < start:
        raise BadIndices("a .npy header that is cut short or of an unknown version", _NPY)
    header_bytes = int.from_bytes(raw[8:start], "little")
    header = raw[start : start + header_bytes]
    if len(header) < header_bytes or header_bytes > _MAX_HEADER_BYTES:
        raise BadIndices("a .npy header that is cut short or too long", _NPY)
    try:
        fields = ast.literal_eval(header.decode("utf-8").strip())
        kind, shape = fields["descr"], fields["shape"]
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise BadIndices("a .npy header that cannot be read", _NPY) from error
    return _integer_kind(kind), _length(shape), start + header_bytes


def _integer_kind(kind: object) -> str:
    if not isinstance(kind, str):
        raise BadIndices("an array with named columns", _NPY)
    order, name = (kind[0], kind[1:]) if kind[:1] in {"<", ">", "|", "="} else ("=", kind)
    if name in _TYPECODES:
        native = "<" if sys.byteorder == "little" else ">"
        return f"{order if order in '<>' else native}{name}"
    letter = name[:1]
    what = _NAMES_OF_KINDS.get(letter, f"values of type '{printable(kind, 20)}'")
    raise BadIndices(what, _NPY_HINTS.get(letter, _NPY))


def _length(shape: object) -> int:
    is_shape = isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)
    if isinstance(shape, tuple) and is_shape and len(shape) == 1:
        return int(shape[0])
    if isinstance(shape, tuple) and is_shape and len(shape) < 10:
        raise BadIndices(f"an array of shape {printable(str(shape), 40)}", f"{_NPY}; write it with .ravel()")
    raise BadIndices("a .npy header without a usable shape", _NPY)


def indices_in_csv(raw: bytes) -> array[int]:
    """The integers of a column, or of one line separated by commas.

    A header is a first line that begins with a letter, '_' or '#', or is empty. (So the header ``0``
    that pandas gives a nameless column counts as row 0.)

    Raises:
        BadIndices: it names the first bad line.
    """
    lines = _text(raw, _CSV).strip().splitlines()
    if not lines:
        return array("q")
    if "," in lines[0] and len(lines) == 1:
        cells = [cell.strip() for cell in lines[0].rstrip(", ").split(",")]
        return _numbers(cells, "position", 0)
    first = lines[0].strip().strip('"').lstrip("-+")
    skipped = 1 if first[:1].isalpha() or first[:1] in {"_", "#", ""} else 0
    column = lines[skipped:]
    joined = "\n".join(column) + "\n"
    if _CLEAN_COLUMN.fullmatch(joined) and len(values := joined.split()) == len(column):
        return array("q", map(int, values))
    return _numbers([line.strip() for line in column], "line", skipped + 1)


def _numbers(cells: list[str], place: str, first: int) -> array[int]:
    values = array("q")
    for number, cell in enumerate(cells, first):
        if not _NUMBER.fullmatch(cell):
            raise BadIndices(_shown_cell(cell, f"{place} {number}"), _CSV)
        values.append(int(cell))
    return values


def _shown_cell(cell: str, place: str) -> str:
    if "," in cell or ";" in cell:
        return f"several columns in {place} ('{printable(cell, 40)}')"
    return f"'{printable(cell, 40)}' in {place}" if cell else f"nothing in {place}"


def indices_in_json(raw: bytes) -> array[int]:
    """The integers of one flat list. Raises BadIndices naming the first bad position."""
    text = _text(raw, _JSON)
    if len(text) > _FREE_JSON_CHARACTERS and not _FLAT_JSON.fullmatch(text):
        # Millions of empty lists would cost a hundred times their bytes.
        raise BadIndices("something else than integers between two brackets", _JSON)
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        found = f"what is not JSON from line {error.lineno}, column {error.colno} on"
        raise BadIndices(found, _JSON) from error
    except (ValueError, RecursionError) as error:
        raise BadIndices("JSON that is too deep, or a number that is too long", _JSON) from error
    if not isinstance(values, list):
        raise BadIndices(f"JSON that begins with '{printable(text.lstrip()[:20])}'", _JSON)
    for position, value in enumerate(values):
        if type(value) is not int or not -(2**63) <= value < 2**63:
            found = f"{printable(json.dumps(value)[:60], 40)} at position {position}"
            raise BadIndices(found, _JSON)
    return array("q", values)


def _text(raw: bytes, expected: str) -> str:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"byte 0x{raw[error.start]:02x} at {error.start}"
        raise BadIndices(found, f"UTF-8 text: {expected}") from error
    if "\0" in text:
        raise BadIndices("a NUL character", expected)
    return text
