"""What needs all labels: reading and splitting a dataset, and choosing the rows of folds.

Runs in a child of the server that exits, so that no process that holds labels is ever an ancestor of a
fold. The test labels are not kept at all; the training labels lie in a folder of their own, which only
the daemon opens.
"""

from __future__ import annotations

import contextlib
import csv
import gc
import json
import os
import platform
import signal
import socket
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import sklearn.model_selection

from . import mapped, processes, wire

META_VERSION = 1
_FOLDS_A_PACKET = 1000
_ROWS_NAMED = 10
_TEXT_LABELS_BYTES = 4 << 30


class Unusable(Exception):
    """The data or the splitter can't be used; the text tells its sender what to mend."""


def main(link: socket.socket, task: dict[str, Any], *, server: int) -> NoReturn:
    """Does one task, tells the daemon how it ended, and ends."""
    processes.die_with_parent(server)
    processes.set_name("datarun-prepare")
    processes.keep_only([0, 1, 2, link.fileno()])
    gc.enable()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # the daemon is gone: nobody waits for the answer
        try:
            if task["kind"] == "prepare":
                wire.send(link, {"op": "prepared", **split(task)})
            else:
                folds = generate(task)
                for start in range(0, len(folds), _FOLDS_A_PACKET):
                    wire.send(link, {"op": "folds", "folds": folds[start : start + _FOLDS_A_PACKET]})
                wire.send(link, {"op": "generated"})
        except Unusable as error:
            wire.send(link, {"op": "failed", "reason": str(error)[:4000], "transient": False})
        except (OSError, MemoryError) as error:
            reason = f"{type(error).__name__}: {error}"
            wire.send(link, {"op": "failed", "reason": reason[:4000], "transient": True})
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            wire.send(link, {"op": "failed", "reason": reason[:4000], "transient": False})
    os._exit(0)


def split(task: dict[str, Any]) -> dict[str, Any]:
    """The prepared folder is complete afterwards: X of both sets, y of the training set, meta.json.

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
    y = train[target]
    labels, files = _store_labels(y, folder / "labels")
    for name, part in (("X_train", train), ("X_test", test)):
        X = part.drop(columns=[target])
        files += mapped.store(X if with_frames else X.values, folder / name)
    meta = {
        "version": META_VERSION,
        "n_train": len(train),
        "n_test": len(test),
        "columns": [str(name) for name in frame.columns if name != target],
        "target": target,
        "x_kind": "frame" if with_frames else "array",
        "labels": labels,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pandas": pd.__version__,
    }
    meta_file = folder / "meta.json"
    meta_file.write_text(json.dumps(meta, indent=1) + "\n")
    names = [str(file.relative_to(folder)) for file in (*files, meta_file)]
    return {"n_train": len(train), "n_test": len(test), "files": names}


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


def _store_labels(y: pd.Series[Any], folder: Path) -> tuple[dict[str, Any], list[Path]]:
    """One .npy file of fixed-width rows, for its owner's eyes only; returns what tells how to read it without numpy."""
    values = np.asarray(y)
    kind = "numeric"
    if values.dtype.kind not in "biuf":
        kind = "text"
        values = _as_text(values, str(y.name))
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    folder.mkdir(mode=0o700)
    path = folder / "y_train.npy"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        np.lib.format.write_array(file, values, version=(1, 0), allow_pickle=False)
        offset = file.tell() - values.nbytes
    return {
        "kind": kind,
        "dtype": values.dtype.str,
        "pandas_dtype": str(y.dtype),
        "offset": offset,
        "itemsize": values.dtype.itemsize,
    }, [path]


def _as_text(values: Any, target: str) -> Any:
    kinds = sorted({type(value).__name__ for value in values})
    if kinds != ["str"]:
        raise Unusable(f"the target {target!r} is of mixed kinds ({', '.join(kinds)}); numbers or text are expected")
    longest = max(map(len, values))
    if 4 * longest * len(values) > _TEXT_LABELS_BYTES:
        raise Unusable(f"the target {target!r} has texts of up to {longest} characters; that is no label")
    text = values.astype(f"<U{max(1, longest)}")
    if not np.array_equal(text.astype(object), values):
        raise Unusable(f"the target {target!r} has texts that end in NUL characters")
    return text


def generate(task: dict[str, Any]) -> list[list[int]]:
    """Writes the rows of all folds, one after the other, into the indices file.

    Returns:
        per fold: position of its first number, n_train, n_test, the greatest row number.

    Raises Unusable, OSError.
    """
    y = np.load(Path(task["prepared_folder"]) / "labels" / "y_train.npy", allow_pickle=False)
    splitter = _splitter(task["splitter"], task["parameters"])
    X = np.zeros((len(y), 1))
    try:
        count = splitter.get_n_splits(X, y)
        if count > task["max_folds"]:
            raise Unusable(f"{task['splitter']} makes {count} folds; at most {task['max_folds']} are accepted")
        parts, folds, offset = [], [], 0
        for train_is, test_is in islice(splitter.split(X, y), task["max_folds"]):
            if not len(train_is) or not len(test_is):
                raise Unusable(f"{task['splitter']} leaves a fold without training or validation rows")
            rows = np.concatenate([train_is, test_is]).astype("<i8")
            parts.append(rows)
            folds.append([offset, len(train_is), len(test_is), int(rows.max())])
            offset += len(rows)
    except (ValueError, TypeError, AttributeError, ArithmeticError, IndexError) as error:
        raise Unusable(f"{task['splitter']} can't split {len(y)} rows: {error}") from None
    if not folds:
        raise Unusable(f"{task['splitter']} makes no folds")
    with open(task["indices_file"], "xb") as file:
        np.lib.format.write_array(file, np.concatenate(parts), version=(1, 0), allow_pickle=False)
    return folds


def _splitter(name: str, parameters: dict[str, Any]) -> Any:
    """An instance of a splitter class of scikit-learn's. Raises Unusable."""
    known = {
        key: value
        for key, value in vars(sklearn.model_selection).items()
        if isinstance(value, type) and hasattr(value, "split") and hasattr(value, "get_n_splits") and key[0] != "_"
        and not getattr(value, "__abstractmethods__", None)
    }
    grouped = sorted(key for key in known if "Group" in key)
    if name in grouped:
        raise Unusable(f"{name} needs groups, which a dataset does not have")
    if name not in known:
        others = ", ".join(sorted(set(known).difference(grouped)))
        raise Unusable(f"{name!r} is no splitter of sklearn.model_selection; those are: {others}")
    try:
        return known[name](**parameters)
    except (TypeError, ValueError) as error:
        raise Unusable(f"{name}: {error}") from None
