"""Predictions that are no array of numbers: a JSON list with one item a row of data, and one item a line of the file.

A fold writes the file, and nobody believes it: it is read a line at a time, so that what is made of it stays small.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np

#: of one item; whoever reads it holds many times as much
_ITEM_BYTES = 16 << 20


class NoJson(Exception):
    """A value that JSON can't hold, or a file that is not ours; the text says what it is."""


def plain(value: Any) -> Any:
    """The same of lists, text, numbers, true, false, null, and objects with names. Raises NoJson, RecursionError."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind in "biufU":
        # long doubles are numbers of numpy's own even in a list
        return plain((value.astype(float) if value.dtype.kind == "f" else value).tolist())
    if isinstance(value, float):
        if not math.isfinite(value):
            raise NoJson(f"{value}, which is no number in JSON")
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {name: plain(each) for name, each in value.items()}
    dtype = f" of dtype {value.dtype}" if isinstance(value, np.generic | np.ndarray) else ""
    raise NoJson(f"{type(value).__name__}{dtype}")


def lines(items: Iterable[Any]) -> Iterator[bytes]:
    """The file, of items that are plain. Raises NoJson: an item is too long."""
    mark = b"[\n"
    for number, item in enumerate(items):
        line = json.dumps(item, allow_nan=False).encode()
        if len(line) > _ITEM_BYTES:
            raise NoJson(f"item {number} has {len(line)} bytes; at most {_ITEM_BYTES} are accepted")
        yield mark + line
        mark = b",\n"
    yield b"\n]\n"


def items(file: BinaryIO, rows: int) -> Iterator[Any]:
    """The items of a file that :func:`lines` may have written: so many. Raises NoJson: it is something else."""
    if file.readline(3) != b"[\n":
        raise NoJson("not a list with one item a line")
    for number in range(rows):
        line = file.readline(_ITEM_BYTES + 3)
        end = b",\n" if number < rows - 1 else b"\n"
        if not line.endswith(end):
            raise NoJson(f"not {rows} items, each in a line of at most {_ITEM_BYTES} bytes")
        try:
            yield json.loads(line[: -len(end)], parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise NoJson(f"item {number} is no JSON: {error}") from None
    if file.read(3) != b"]\n":
        raise NoJson(f"not {rows} items, each in a line")


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number in JSON")
