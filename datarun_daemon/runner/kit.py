"""RAMP kits: problem.py and submissions get from us what ``ramp-test`` would give them, but for labels.

Nothing of ramp-workflow is imported here: problem.py does that, in a worker that splits, and in folds.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from . import label_file, object_labels, surroundings
from .dataset_code import CODE, DatasetCode, copy_files
from .unusable import Unusable

MODULE = "problem"
FILE = f"{MODULE}.py"
_IMPORTS = "external_imports"
#: beside a kit's files in the store: its manifest, and what earlier splits of it left
_OURS = re.compile(r"manifest\.yaml|prepared\.[0-9]+\.[0-9]+")
_NEEDED = ("problem_title", "workflow", "get_train_data")
_WORKFLOW_NEEDED = ("train_submission", "test_submission")


def split(task: dict[str, Any], *, doing: Callable[[str], None]) -> dict[str, Any]:
    """X of both sets and y of the training set are stored afterwards; returns what meta.json says of them.

    A kit without a test set has no X_test, and ``n_test`` is 0.

    Args:
        doing: is told what is done next, in words that can be followed by "failed".

    Raises Unusable: the code, or what it returned, is not what it should be. OSError: its files can't be copied.
    """
    folder = Path(task["prepared_folder"])
    # where folds find the code afterwards, and the files that they may read: X may hold their paths
    work = folder / CODE
    copy_files(task, files_of(task), work, python_file=FILE)
    surroundings.live_in(str(work))
    np.random.seed()  # children of one parent share its state
    code = DatasetCode(FILE, str(work), doing)
    _load(code, str(work))
    X, y = code.pair("get_train_data", code.call("get_train_data", path=str(work)))
    if not code.count("get_train_data", "y", y):
        raise Unusable(f"{code.where('get_train_data')} returned no labels; at least one is expected")
    X_test, n_test = _test_set(code, str(work))
    axes = ("list", None, None) if isinstance(y, list | tuple) else label_file.axes_of(y)
    labels = _store_labels(code, y, folder / "labels")
    code.pickled("get_train_data", "X", (X, axes)).write(folder / "X_train")
    if n_test:
        code.pickled("get_test_data", "X", X_test).write(folder / "X_test")
    return {"n_test": n_test, "x_kind": "own", "own_training": True, "labels": labels}


def _load(code: DatasetCode, folder: str) -> None:
    try:
        code.load(partial(import_problem, folder))
    except Unusable as error:
        if importlib.util.find_spec("rampwf") is not None:
            raise
        raise Unusable(
            f"this dataset is a RAMP kit, and the interpreter {sys.executable} has no ramp-workflow; "
            f"pip install 'datarun-daemon[ramp]'\n{error}"
        ) from None
    missing = [name for name in _NEEDED if not hasattr(code.module, name)]
    if not missing:
        workflow = code.module.workflow
        missing = [f"workflow.{name}" for name in _WORKFLOW_NEEDED if not callable(getattr(workflow, name, None))]
    if missing:
        expected = ", ".join([*_NEEDED, *(f"workflow.{name}" for name in _WORKFLOW_NEEDED)])
        raise Unusable(f"{FILE} defines no {' and no '.join(missing)}; {expected} are expected")


def _test_set(code: DatasetCode, folder: str) -> tuple[Any, int]:
    """X, and how many rows are to be predicted: as many as there are labels, if there are any; 0 without a test set."""
    if not code.defines("get_test_data"):
        return None, 0
    returned = code.call("get_test_data", path=folder)
    if returned is None:
        return None, 0
    X, y = code.pair("get_test_data", returned)
    if X is None:
        return None, 0
    rows = code.count("get_test_data", "X", X) if y is None else code.count("get_test_data", "y", y)
    if not rows:
        raise Unusable(f"{code.where('get_test_data')} returned no rows; a kit without a test set returns None")
    return X, rows


def _store_labels(code: DatasetCode, y: Any, folder: Path) -> dict[str, Any]:
    """Numbers and text as those of any dataset; everything else, which only a fold can look at, row by row."""
    where = f"y of {code.where('get_train_data')}"
    is_list = isinstance(y, list | tuple)
    array = code.run(f"making an array of {where}", partial(_as_array, y))
    # numpy makes text of 1 and "a" in one list, and rows of equal lists
    if not is_list or (array.ndim == 1 and array.dtype.kind != "O" and array.tolist() == list(y)):
        try:
            return label_file.store(array if label_file.axes_of(y) is None else y, folder, what=where)
        except Unusable:
            pass  # objects, dates, a mixture, three dimensions: whatever they are, they are not looked at
    stacked = not is_list and (array.ndim > 1 or array.dtype.kind != "O")
    rows = code.run(f"pickling {where}", partial(object_labels.pickled, array if stacked else y))
    object_labels.store(rows, folder)
    return {"pickled": True, "stacked": stacked, **label_file.given_as(y, array.dtype)}


def _as_array(y: Any) -> Any:
    try:
        return np.asarray(y)
    except ValueError:  # lists of unequal length
        array = np.empty(len(y), object)
        for number, row in enumerate(y):
            array[number] = row
        return array


def files_of(task: dict[str, Any]) -> list[str]:
    """The kit's files, relative to its folder: those named, or all that were dropped."""
    if task["files"]:
        return sorted({*task["files"], task["specific"]})
    top = Path(task["dataset_folder"])
    dropped = (entry for entry in top.iterdir() if not _OURS.fullmatch(entry.name))
    files = (file for entry in dropped for file in (entry.rglob("*") if entry.is_dir() else (entry,)))
    return sorted(file.relative_to(top).as_posix() for file in files if file.is_file())


def code_names(task: dict[str, Any]) -> list[str]:
    """Of the kit's files those that folds may see: code, and what its owner says holds no label.

    Raises Unusable: ``fold_files`` names nothing that is there.
    """
    names = files_of(task)
    code = {name for name in names if name.startswith(f"{_IMPORTS}/") or ("/" not in name and name.endswith(".py"))}
    for path in task["fold_files"]:
        named = {name for name in names if name == path or name.startswith(f"{path}/")}
        if not named:
            raise Unusable(f"fold_files: there is no file or folder {path} in the kit")
        code |= named
    return sorted(code)


def import_problem(folder: str) -> ModuleType:
    """The kit's problem.py, as module ``problem``, which can import what is beside it, as it can for ``ramp-test``.

    Raises whatever it raises.
    """
    sys.path += [os.path.join(folder, _IMPORTS), folder]
    spec = importlib.util.spec_from_file_location(MODULE, os.path.join(folder, FILE))
    assert spec is not None
    assert spec.loader is not None
    problem = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = problem  # where pickles look for its classes
    spec.loader.exec_module(problem)
    return problem


@dataclass(frozen=True, slots=True)
class KitModel:
    """A submission as the kit's workflow trained it."""

    problem: ModuleType
    trained: Any
    #: train_is and valid_is
    fold: tuple[Any, Any]

    def predict(self, X: Any, *, is_training_set: bool) -> Any:
        """Whatever test_submission returns for all rows of X; some workflows want to know of the fold."""
        test = self.problem.workflow.test_submission
        names = list(inspect.signature(test).parameters)
        if len(names) == 3 and names[2] == "fold":
            return test(self.trained, X, self.fold if is_training_set else None)
        return test(self.trained, X)

    def column_names(self, predictions: Any) -> list[str] | None:
        """The label_names that the kit's Predictions were made with, if there are as many."""
        names = getattr(getattr(self.problem, "Predictions", None), "label_names", None)
        columns = 1 if predictions.ndim == 1 else predictions.shape[1]
        return [str(name) for name in names] if isinstance(names, list | tuple) and len(names) == columns else None


def train(problem: ModuleType, submission: str, X: Any, y: Any, fold: tuple[Any, Any]) -> KitModel:
    """What the kit's workflow makes of the submission.

    Args:
        submission: absolute path of its folder.
        X: all training rows, as get_train_data returned them.
        y: as get_train_data returned it, but only labels of ``train_is`` are true (:func:`label_file.masked`).
        fold: train_is and valid_is, each of shape (k,), int64.
    """
    return KitModel(problem, problem.workflow.train_submission(submission, X, y, fold[0]), fold)
