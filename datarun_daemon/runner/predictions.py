"""What a submission returned becomes a file: an array of numbers, or for a RAMP kit anything that JSON holds.

The files are for :mod:`results`, which reads them as a stranger's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import json_items


class WrongPredictions(Exception):
    """What the submission returned can't be its predictions; the text is for its author."""


def save(name: str, returned: Any, *, rows: int, what: str, objects: bool) -> Any:
    """``name.npy`` is there afterwards, and its array is returned; or ``name.json``, and None is.

    Args:
        objects: the latter may be.

    Raises WrongPredictions, OSError.
    """
    if objects and not _are_numbers(returned):
        _save_items(f"{name}.json", returned, rows=rows, what=what)
        return None
    array = _as_numbers(returned, rows=rows, what=what)
    with open(f"{name}.npy", "wb") as file:
        np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)
    return array


def _as_numbers(returned: Any, *, rows: int, what: str) -> Any:
    """An array that can be stored and read back anywhere: C order, little-endian, bool, int or float.

    Raises WrongPredictions: not numbers, not 1-D or 2-D, no columns, or a row too many or too few.
    """
    array = np.asarray(returned)
    if array.dtype.kind not in "biuf":
        raise WrongPredictions(
            f"Wrong {what} predictions: \n"
            f"{type(returned).__name__} of dtype {array.dtype} instead of an array of numbers"
        )
    if array.ndim not in (1, 2) or 0 in array.shape[1:]:
        raise WrongPredictions(
            f"Wrong {what} prediction shape: \n{array.shape} instead of ({rows},) or ({rows}, number of columns)"
        )
    _check_size(len(array), rows, what)
    dtype = np.dtype(np.float64) if array.dtype.itemsize > 8 else array.dtype.newbyteorder("<")
    return np.ascontiguousarray(array, dtype)


def _check_size(size: int, rows: int, what: str) -> None:
    if size != rows:
        raise WrongPredictions(f"Wrong {what} prediction size: \n{size} instead of {rows}")


def _are_numbers(returned: Any) -> bool:
    """In one or two dimensions, as one array."""
    try:
        array = np.asarray(returned)
    except ValueError:  # lists of unequal length
        return False
    return array.dtype.kind in "biuf" and array.ndim in (1, 2) and 0 not in array.shape[1:]


def _save_items(path: str, returned: Any, *, rows: int, what: str) -> None:
    items = returned if isinstance(returned, list | tuple) else _rows(returned)
    if items is None:
        kind = type(returned).__name__
        raise WrongPredictions(f"Wrong {what} predictions: \n{kind} instead of an array or list with an item a row")
    _check_size(len(items), rows, what)
    plain = []
    for number, item in enumerate(items):
        try:
            plain.append(json_items.plain(item))
        except (json_items.NoJson, RecursionError) as error:
            why = error if isinstance(error, json_items.NoJson) else "lists that are nested too deep"
            expected = "numbers, or lists of numbers and text, are expected"
            raise WrongPredictions(f"Wrong {what} predictions: \n{why} in item {number}; {expected}") from None
    try:
        with open(path, "wb") as file:
            file.writelines(json_items.lines(plain))
    except (json_items.NoJson, ValueError) as error:
        raise WrongPredictions(f"Wrong {what} predictions: \n{error}") from None


def _rows(returned: Any) -> Sequence[Any] | None:
    array = np.asarray(returned)
    return list(array) if array.ndim else None
