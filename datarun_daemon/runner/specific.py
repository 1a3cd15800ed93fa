"""Datasets in the custom format: the functions of a Python file split them, and may train and test submissions.

The file is imported as ``specific`` whatever it is called, so that what it pickled finds its classes again.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import label_file, surroundings
from .dataset_code import WORK, DatasetCode, copy_files, rows_of
from .unusable import Unusable

MODULE = "specific"
FILE = f"{MODULE}.py"
_SPLITS = ("prepare_data", "get_train_data", "get_test_data")
_TRAINS = ("train_submission", "test_submission")


def split(task: dict[str, Any], *, doing: Callable[[str], None]) -> dict[str, Any]:
    """X of both sets and y of the training set are stored afterwards; returns what meta.json says of them.

    Args:
        doing: is told what is done next, in words that can be followed by "failed".

    Raises Unusable: the code, or what it returned, is not what it should be. OSError: its files can't be copied.
    """
    folder = Path(task["prepared_folder"])
    work = folder / WORK
    copy_files(task, sorted({*task["files"], task["specific"]}), work, python_file=FILE)
    surroundings.live_in(str(work))
    np.random.seed()  # children of one parent share its state
    code = DatasetCode(task["specific"], str(work), doing)
    sys.path.insert(0, str(work))
    code.load(partial(importlib.import_module, MODULE))
    trains = _check_functions(code, task["specific"])
    code.call("prepare_data", str(work))
    X, y = code.pair("get_train_data", code.call("get_train_data", str(work)))
    X_test, y_test = code.pair("get_test_data", code.call("get_test_data", str(work)))
    _check_rows(code, "get_train_data", X, y)
    n_test = _check_rows(code, "get_test_data", X_test, y_test)
    if not label_file.axes_of(y):
        y = code.run(f"making an array of y of {code.where('get_train_data')}", partial(np.asarray, y))
    labels = label_file.store(y, folder / "labels", what=f"y of {code.where('get_train_data')}")
    code.pickled("get_train_data", "X", (X, label_file.axes_of(y))).write(folder / "X_train")
    code.pickled("get_test_data", "X", X_test).write(folder / "X_test")
    return {"n_test": n_test, "x_kind": "own", "own_training": trains, "labels": labels}


def _check_functions(code: DatasetCode, file: str) -> bool:
    """Whether it trains and tests submissions itself. Raises Unusable: functions are missing."""
    missing = [name for name in _SPLITS if not code.defines(name)]
    if missing:
        expected = ", ".join(f"{name}(path)" for name in _SPLITS)
        raise Unusable(f"{file} defines no {' and no '.join(missing)}; {expected} are expected")
    trains = [name for name in _TRAINS if code.defines(name)]
    if len(trains) == 1:
        (other,) = set(_TRAINS).difference(trains)
        raise Unusable(f"{file} defines {trains[0]} and no {other}; both are expected, or neither")
    return bool(trains)


def _check_rows(code: DatasetCode, function: str, X: Any, y: Any) -> int:
    """How many there are. Raises Unusable: none, or not one label for each."""
    rows, labels = (code.count(function, name, value) for name, value in (("X", X), ("y", y)))
    where = code.where(function)
    if rows != labels:
        raise Unusable(f"{where} returned X with {rows} rows and y with {labels}; one label a row is expected")
    if not rows:
        raise Unusable(f"{where} returned no rows; at least one is expected")
    return rows


def code_names(task: dict[str, Any]) -> list[str]:
    """Of the dataset's files those that folds may see: none that can hold a label."""
    return sorted(name for name in {*task["files"], task["specific"]} if name.endswith(".py"))


@contextmanager
def first_on_path(folder: str) -> Iterator[None]:
    """Modules are looked for in the folder before anywhere else, and afterwards only after everywhere else."""
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)
    sys.path.append(folder)


@dataclass(frozen=True, slots=True)
class OwnModel:
    """A submission as the dataset's own code trained it."""

    trained: Any
    #: test_submission
    test: Callable[[Any, Any, Any], Any]
    classifies: bool
    #: nobody knows what is in ``trained``
    estimator: None = None

    def predict(self, X: Any) -> Any:
        """Whatever test_submission returns for all rows of X."""
        return self.test(self.trained, X, np.arange(rows_of(X)))


def train(package: str, X: Any, y: Any, train_is: Any, *, classifies: bool) -> OwnModel:
    """What the dataset's train_submission makes of the submission.

    Args:
        package: the submission's modules are importable below it.
        X: all training rows, as get_train_data returned them.
        y: a label for each of them, of which only those of ``train_is`` are true (:func:`label_file.masked`); an
            array, or a Series or DataFrame where get_train_data returned one.
        train_is: shape (k,), int64.
    """
    own = importlib.import_module(MODULE)
    return OwnModel(own.train_submission(package, X, y, train_is), own.test_submission, classifies)
