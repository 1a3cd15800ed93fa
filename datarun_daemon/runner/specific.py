"""A dataset's own code: the functions of its Python file, called as a plain script would call them.

That code is a stranger's. It runs in a worker that splits the dataset, and in folds, nowhere else; what it
stored is opened only there too.

The file is imported as ``specific`` whatever it is called, so that what it pickled finds its classes again.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from . import label_file, mapped, surroundings
from .unusable import Unusable

MODULE = "specific"
#: below the prepared folder: where the dataset's code works, and may write; gone once the dataset is split
WORK = "work"
#: below the prepared folder: its Python files, and nothing that holds a label
CODE = "code"
_SPLITS = ("prepare_data", "get_train_data", "get_test_data")
_TRAINS = ("train_submission", "test_submission")
_TRACEBACK_CHARACTERS = 4000
_MESSAGE_CHARACTERS = 500

T = TypeVar("T")


def split(task: dict[str, Any], *, doing: Callable[[str], None]) -> dict[str, Any]:
    """X of both sets and y of the training set are stored afterwards; returns what meta.json says of them.

    Args:
        doing: is told what is done next, in words that can be followed by "failed".

    Raises Unusable: the code, or what it returned, is not what it should be. OSError: its files can't be copied.
    """
    folder = Path(task["prepared_folder"])
    work = folder / WORK
    copy_files(task, sorted({*task["files"], task["specific"]}), work)
    surroundings.live_in(str(work))
    np.random.seed()  # children of one parent share its state
    code = _Code(task["specific"], str(work), doing)
    code.load()
    code.call("prepare_data")
    X, y = code.pair("get_train_data")
    X_test, y_test = code.pair("get_test_data")
    code.check_rows("get_train_data", X, y)
    n_test = code.check_rows("get_test_data", X_test, y_test)
    y = code.labels("get_train_data", y)
    labels = label_file.store(y, folder / "labels", what=f"y of get_train_data of {task['specific']}")
    code.pickled("get_train_data", (X, label_file.axes_of(y))).write(folder / "X_train")
    code.pickled("get_test_data", X_test).write(folder / "X_test")
    return {"n_test": n_test, "x_kind": "own", "own_training": code.trains, "labels": labels}


def copy_files(task: dict[str, Any], names: Iterable[str], folder: Path) -> list[Path]:
    """These files of the dataset lie in the new folder, and the Python file is called specific.py there.

    Raises Unusable (two files of that name), OSError.
    """
    folder.mkdir(parents=True)
    copies = []
    for name in names:
        copy = folder / (f"{MODULE}.py" if name == task["specific"] else name)
        if copy in copies:
            raise Unusable(f"{task['specific']} is imported as {MODULE}.py, and there is another file of that name")
        copies.append(copy)
        shutil.copyfile(Path(task["dataset_folder"]) / name, copy)
    return copies


class _Code:
    """The functions of a dataset, called one after the other; what goes wrong in them is told as theirs."""

    def __init__(self, name: str, folder: str, doing: Callable[[str], None]) -> None:
        self._name = name
        self._folder = folder
        self._doing = doing
        self._module = ModuleType(MODULE)

    def load(self) -> None:
        sys.path.insert(0, self._folder)
        self._module = self._run(f"the import of {self._name}", partial(importlib.import_module, MODULE))
        missing = [name for name in _SPLITS if not self._defines(name)]
        if missing:
            expected = ", ".join(f"{name}(path)" for name in _SPLITS)
            raise Unusable(f"{self._name} defines no {' and no '.join(missing)}; {expected} are expected")
        trains = [name for name in _TRAINS if self._defines(name)]
        if len(trains) == 1:
            (other,) = set(_TRAINS).difference(trains)
            raise Unusable(f"{self._name} defines {trains[0]} and no {other}; both are expected, or neither")

    @property
    def trains(self) -> bool:
        """It trains and tests submissions itself."""
        return self._defines(_TRAINS[0])

    def _defines(self, name: str) -> bool:
        return callable(getattr(self._module, name, None))

    def call(self, function: str) -> Any:
        return self._run(f"{function} of {self._name}", partial(getattr(self._module, function), self._folder))

    def pair(self, function: str) -> tuple[Any, Any]:
        """Raises Unusable: it failed, or did not return two things."""
        returned = self.call(function)
        if not isinstance(returned, tuple | list) or len(returned) != 2:
            kind = type(returned).__name__
            some = f"{kind} of {len(returned)}" if isinstance(returned, tuple | list) else kind
            raise Unusable(f"{function} of {self._name} returned {some}; a pair is expected: X, y")
        return returned[0], returned[1]

    def check_rows(self, function: str, X: Any, y: Any) -> int:
        """How many there are. Raises Unusable: none, or not one label for each."""
        where = f"{function} of {self._name}"
        rows, labels = (
            self._run(f"counting the rows of {name} of {where}", partial(rows_of, value))
            for name, value in (("X", X), ("y", y))
        )
        if rows != labels:
            raise Unusable(f"{where} returned X with {rows} rows and y with {labels}; one label a row is expected")
        if not rows:
            raise Unusable(f"{where} returned no rows; at least one is expected")
        return rows

    def labels(self, function: str, y: Any) -> Any:
        """A Series or DataFrame as it is, everything else as an array."""
        what = f"making an array of y of {function} of {self._name}"
        array = self._run(what, partial(np.asarray, y))
        return y if label_file.axes_of(y) else array

    def pickled(self, function: str, value: object) -> mapped.Pickled:
        return self._run(f"pickling X of {function} of {self._name}", partial(mapped.pickled, value))

    def _run(self, what: str, act: Callable[[], T]) -> T:
        self._doing(what)
        try:
            return act()
        except BaseException as error:
            raise Unusable(f"{what} failed: {self._story(error)}") from None

    def _story(self, error: BaseException) -> str:
        try:
            message, text = surroundings.story(error, folders=[self._folder])
        except BaseException as second:  # an exception whose text raises
            return f"{type(error).__name__} (and {type(second).__name__} on showing it)"
        if len(text) > _TRACEBACK_CHARACTERS:
            text = f"[…]{text[-_TRACEBACK_CHARACTERS:]}"
        return f"{message[:_MESSAGE_CHARACTERS]}\n{text.rstrip()}"


@contextmanager
def first_on_path(folder: str) -> Iterator[None]:
    """Modules are looked for in the folder before anywhere else, and afterwards only after everywhere else."""
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)
    sys.path.append(folder)


def rows_of(value: Any) -> int:
    """Of what has a shape (arrays, frames, sparse matrices), or else a length."""
    shape = getattr(value, "shape", None)
    return int(shape[0]) if shape else len(value)


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
