"""Datasets in the standard format: a CSV file with a target column, split into two sets of rows."""

from __future__ import annotations

import csv
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn.model_selection

from . import label_file, mapped
from .unusable import Unusable

_ROWS_NAMED = 10


def split(task: dict[str, Any]) -> dict[str, Any]:
    """X of both sets and y of the training set are stored afterwards; returns what meta.json says of them.

    The rows are those of ``train_test_split(pd.read_csv(file), test_size=…, random_state=…)``.

    Raises Unusable, with all there is to say; OSError.
    """
    target: str = task["target_column"]
    frame = _read_csv(Path(task["data_file"]))
    _check_columns(frame, target)
    try:
        train, test = sklearn.model_selection.train_test_split(
            frame, test_size=task["held_out_test"], random_state=task["random_state"]
        )
    except ValueError as error:
        share = task["held_out_test"]
        raise Unusable(f"{len(frame)} rows can't be split with held_out_test {share}: {error}") from None
    folder = Path(task["prepared_folder"])
    folder.mkdir(parents=True, mode=0o755)
    with_frames = "feature_extractor" in task["elements"]
    labels = label_file.store(train[target], folder / "labels", what=f"the target {target!r}")
    X = train.drop(columns=[target])
    X_test = test.drop(columns=[target])
    if with_frames:
        mapped.store((X, ("series", X.index, target)), folder / "X_train")
    else:
        mapped.store((X.values, None), folder / "X_train")
    mapped.store(X_test if with_frames else X_test.values, folder / "X_test")
    return {"n_test": len(test), "x_kind": "frame" if with_frames else "array", "own_training": False, "labels": labels}


def _read_csv(file: Path) -> pd.DataFrame:
    """As pandas reads it, but for what pandas lets pass in silence. Raises Unusable."""
    try:
        frame = pd.read_csv(file)
    except UnicodeDecodeError as error:
        raise Unusable(f"{file.name} is not UTF-8 text: {error}") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError, OverflowError) as error:
        raise Unusable(f"{file.name} can't be read as CSV: {str(error).strip()}") from None
    names = _header(file)
    doubled = sorted({name for name in names if name and names.count(name) > 1})
    if doubled:
        raise Unusable(f"{file.name} has columns of the same name: {', '.join(doubled)}")
    if not isinstance(frame.index, pd.RangeIndex):
        raise Unusable(f"{file.name}: rows have more fields than the header has names ({len(names)})")
    if len(frame) and frame.iloc[:, -1].isna().any():
        _check_row_lengths(file, len(names))
    if len(frame) < 2:
        raise Unusable(f"{file.name} has {len(frame)} rows; at least 2 are needed for a training and a test set")
    return frame


def _header(file: Path) -> list[str]:
    with file.open(newline="", encoding="utf-8-sig") as lines:
        return next((row for row in _rows(lines) if row), [])


def _rows(lines: Any) -> Any:
    csv.field_size_limit(1 << 30)
    try:
        yield from csv.reader(lines)
    except (csv.Error, UnicodeDecodeError):
        return  # pandas has read it; ours is only a second look


def _check_row_lengths(file: Path, length: int) -> None:
    """pandas fills short rows with NaN; to us they are a file cut short or damaged."""
    with file.open(newline="", encoding="utf-8-sig") as lines:
        reader = _rows(lines)
        short = [number for number, row in enumerate(reader, 1) if row and len(row) < length]
    if short:
        named = ", ".join(map(str, short[:_ROWS_NAMED])) + (" …" if len(short) > _ROWS_NAMED else "")
        raise Unusable(f"{file.name}: fewer than {length} fields in record {named} (the header is record 1)")


def _check_columns(frame: pd.DataFrame, target: str) -> None:
    if target not in frame.columns:
        there = ", ".join(map(str, islice(frame.columns, 50)))
        raise Unusable(f"there is no column {target!r} (target_column); columns are: {there}")
    if len(frame.columns) < 2:
        raise Unusable(f"there is no column but the target {target!r}")
    missing = np.flatnonzero(frame[target].isna().to_numpy())
    if len(missing):
        named = ", ".join(str(row + 1) for row in missing[:_ROWS_NAMED]) + (" …" if len(missing) > _ROWS_NAMED else "")
        raise Unusable(f"the target {target!r} is missing in {len(missing)} of {len(frame)} rows: data row {named}")
