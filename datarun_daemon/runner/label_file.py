"""The labels of a training set, numbers or text: rows of a fixed width in one file that only the daemon opens.

The daemon cuts the rows of a fold out of it without numpy (``labels.py``); the fold makes of them what a
plain script would have in its hands.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import object_labels
from .unusable import Unusable

FILE = "y_train.npy"
_MAX_TEXT_BYTES = 4 << 30
#: what pandas keeps beside the values: "series" or "frame", the index, and the name or the columns; or "list"
Axes = tuple[str, Any, Any]


def axes_of(y: object) -> Axes | None:
    if isinstance(y, pd.Series):
        return "series", y.index, y.name
    if isinstance(y, pd.DataFrame):
        return "frame", y.index, y.columns
    return None


def store(y: Any, folder: Path, *, what: str) -> dict[str, Any]:
    """The folder is made, for its owner's eyes only; returns what tells how to read it without numpy.

    Args:
        y: shape (n,) or (n, k); numbers or text.
        what: names the labels to their author.

    Raises Unusable, OSError.
    """
    given = np.asarray(y)
    if given.ndim not in (1, 2) or 0 in given.shape[1:]:
        raise Unusable(f"{what} has shape {given.shape}; one label a row is expected: (rows,) or (rows, columns)")
    values = given if given.dtype.kind in "biuf" else _as_text(given, what)
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    folder.mkdir(mode=0o700)
    descriptor = os.open(folder / FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        np.lib.format.write_array(file, values, version=(1, 0), allow_pickle=False)
    _, described = describe(folder)
    return described | given_as(y, given.dtype)


def given_as(y: Any, dtype: Any) -> dict[str, Any]:
    """What the file itself can't tell."""
    return {"given_dtype": str(dtype), "pandas_dtype": str(y.dtype) if isinstance(y, pd.Series) else ""}


def _as_text(values: Any, what: str) -> Any:
    if values.dtype.kind not in "OU":
        raise Unusable(f"{what} is an array of {values.dtype}; numbers or text are expected")
    kinds = sorted({"str" if isinstance(value, str) else type(value).__name__ for value in values.flat})
    if len(kinds) > 1:
        raise Unusable(f"{what} is of mixed kinds ({', '.join(kinds)}); numbers or text are expected")
    if kinds not in (["str"], []):
        raise Unusable(f"{what} holds objects ({kinds[0]}); an array of numbers or of text is expected")
    longest = max(map(len, values.flat), default=0)
    if 4 * longest * values.size > _MAX_TEXT_BYTES:
        raise Unusable(f"{what} has texts of up to {longest} characters; that is no label")
    text = values.astype(f"<U{max(1, longest)}")
    if not np.array_equal(text.astype(object), values):
        raise Unusable(f"{what} has texts that end in NUL characters")
    return text


def describe(folder: Path) -> tuple[int, dict[str, Any]]:
    """How many rows there are, and how they lie in the file: believed only as far as the file itself bears it out.

    Raises ValueError, OSError: it is no file of ours.
    """
    descriptor = os.open(folder / FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{FILE} is no regular file")
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{FILE} is no .npy file of version 1.0")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        offset = file.tell()
    rows, columns = (*shape, 0, 0)[:2]
    row_bytes = dtype.itemsize * max(1, columns)
    if dtype.kind not in "biufU" or len(shape) not in (1, 2) or fortran or rows < 1:
        raise ValueError(f"{FILE} holds no rows of labels")
    if status.st_size != offset + rows * row_bytes:
        raise ValueError(f"{FILE} does not hold what its header says")
    return rows, {
        "dtype": dtype.str,
        "offset": offset,
        "columns": columns,
        "row_bytes": row_bytes,
        "pickled": False,
    }


def load(folder: Path) -> tuple[int, Any]:
    """How many rows there are, and their labels; None where these are pickles, which only folds open.

    Raises OSError, ValueError.
    """
    if (folder / object_labels.INDEX).exists():
        return object_labels.describe(folder), None
    y = np.load(folder / FILE, allow_pickle=False)
    return len(y), y


def received(descriptor: int, labels: Mapping[str, Any], counts: tuple[int, int]) -> tuple[Any, Any, Any]:
    """Row numbers train_is and test_is, int64, so many of each; and the labels of train_is as their author had them.

    Pickled labels run what their pickles say.
    """
    with open(descriptor, "rb") as file:
        data = bytearray(file.read())
    count, others = counts
    train_is, test_is = np.frombuffer(data, "<i8", count), np.frombuffer(data, "<i8", others, offset=8 * count)
    begin = 8 * (count + others)
    if labels["pickled"]:
        return train_is, test_is, object_labels.opened(data[begin:], count, stacked=labels["stacked"])
    columns = labels["columns"]
    values = np.frombuffer(data, labels["dtype"], count * max(1, columns), offset=begin)
    values = values.astype(labels["given_dtype"], copy=False)
    return train_is, test_is, values.reshape(count, columns) if columns else values


def masked(y: Any, train_is: Any, rows: int, *, pickled: bool) -> Any:
    """Labels for all rows, of which only those of ``train_is`` are true.

    The others are NaN where labels are floating numbers, None where they were pickled objects, else a copy of the
    first training row's: nothing that computes with all of them learns of a label that is not its own.
    """
    everywhere = np.empty((rows, *y.shape[1:]), y.dtype)
    if y.dtype.kind == "f":
        everywhere[:] = np.nan
    elif y.dtype.kind != "O" or not pickled:
        everywhere[:] = y[0]
    everywhere[train_is] = y
    return everywhere


def with_axes(y: Any, axes: Axes, labels: Mapping[str, Any], rows: Any = slice(None)) -> Any:
    """A list, Series or DataFrame as its author had it (a frame's columns in one dtype); ``rows`` are those of y."""
    kind, index, name = axes
    if kind == "list":
        return y.tolist()
    if kind == "series":
        return pd.Series(y, index=index[rows], name=name, dtype=labels["pandas_dtype"])
    return pd.DataFrame(y, index=index[rows], columns=name)
