"""Rows of folds, chosen by a splitter of scikit-learn's."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.model_selection

from . import label_file
from .unusable import Unusable


def generate(task: dict[str, Any]) -> list[list[int]]:
    """Writes the rows of all folds, one after the other, into the indices file.

    Returns:
        per fold: position of its first number, n_train, n_test, the greatest row number.

    Raises Unusable, OSError.
    """
    rows, y = label_file.load(Path(task["prepared_folder"]) / "labels")
    splitter = _splitter(task["splitter"], task["parameters"])
    X = np.zeros((rows, 1))
    try:
        count = splitter.get_n_splits(X, y)
        if count > task["max_folds"]:
            raise Unusable(f"{task['splitter']} makes {count} folds; at most {task['max_folds']} are accepted")
        parts, folds, offset = [], [], 0
        for train_is, test_is in islice(splitter.split(X, y), task["max_folds"]):
            if not len(train_is) or not len(test_is):
                raise Unusable(f"{task['splitter']} leaves a fold without training or validation rows")
            numbers = np.concatenate([train_is, test_is]).astype("<i8")
            parts.append(numbers)
            folds.append([offset, len(train_is), len(test_is), int(numbers.max())])
            offset += len(numbers)
    except (ValueError, TypeError, AttributeError, ArithmeticError, IndexError) as error:
        raise Unusable(f"{task['splitter']} can't split {rows} rows: {error}") from None
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
