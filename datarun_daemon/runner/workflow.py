"""What a submission's elements do, in order: exactly what a plain script over scikit-learn would.

Nothing here knows of processes, files or limits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedShuffleSplit

#: the class that each element's module must define
CLASSES = {
    "feature_extractor": "FeatureExtractor",
    "classifier": "Classifier",
    "calibrator": "Calibrator",
    "regressor": "Regressor",
}


class ElementMissing(Exception):
    """A module of the submission does not define the class it must."""


@dataclass(frozen=True, slots=True)
class Model:
    """Fitted elements; which of them are there decides how it predicts."""

    feature_extractor: Any
    #: classifier or regressor
    estimator: Any
    calibrator: Any
    classifies: bool

    def predict(self, X: Any) -> Any:
        """Whatever the last element returns for all rows of X: probabilities, or a regressor's values."""
        features = X if self.feature_extractor is None else self.feature_extractor.transform(X)
        if not self.classifies:
            return self.estimator.predict(features)
        probabilities = self.estimator.predict_proba(features)
        if self.calibrator is None:
            return probabilities
        return self.calibrator.predict_proba(probabilities)


def train(load: Callable[[str], ModuleType], elements: Sequence[str], X: Any, y: Any, train_is: Any) -> Model:
    """A model fitted on the rows ``train_is`` of X.

    Args:
        load: imports an element's module by its name.
        X: all training rows, as :func:`prepared` made them: a DataFrame only if there is a feature extractor.
        y: labels of the rows ``train_is`` only, in their order: a Series beside a DataFrame, else an array.
        train_is: shape (k,), int64.

    A calibrator is fitted on the classifier's probabilities of a tenth of the rows, which the classifier
    was not fitted on (StratifiedShuffleSplit, random_state 57, as the original did).
    """
    extractor = None
    features = select(X, train_is)
    if "feature_extractor" in elements:
        extractor = new(load, "feature_extractor")
        extractor.fit(features, y)
        features = extractor.transform(features)
    if "regressor" in elements:
        regressor = new(load, "regressor")
        regressor.fit(features, y)
        return Model(extractor, regressor, None, classifies=False)
    classifier = new(load, "classifier")
    if "calibrator" not in elements:
        classifier.fit(features, y)
        return Model(extractor, classifier, None, classifies=True)
    calibrator = new(load, "calibrator")
    labels = np.asarray(y)
    halves = StratifiedShuffleSplit(n_splits=1, test_size=0.1, random_state=57)
    fit_is, calibrate_is = next(halves.split(np.zeros(len(labels)), labels))
    classifier.fit(select(features, fit_is), labels[fit_is])
    calibrator.fit(classifier.predict_proba(select(features, calibrate_is)), labels[calibrate_is])
    return Model(extractor, classifier, calibrator, classifies=True)


def prepared(X: Any, elements: Sequence[str]) -> Any:
    """X as the elements get it: without a feature extractor, which knows of columns, a DataFrame is its values."""
    return X.values if isinstance(X, pd.DataFrame) and "feature_extractor" not in elements else X


def select(X: Any, rows: Any) -> Any:
    """Rows by position: of a DataFrame or Series, of what has a shape (arrays, sparse matrices), or item by item."""
    if isinstance(X, pd.DataFrame | pd.Series):
        return X.iloc[rows]
    if hasattr(X, "shape"):
        return X[rows]
    return [X[row] for row in rows]


def new(load: Callable[[str], ModuleType], element: str) -> Any:
    """An instance of the element's class."""
    module = load(element)
    name = CLASSES[element]
    try:
        element_class = getattr(module, name)
    except AttributeError:
        defined = ", ".join(key for key, value in vars(module).items() if isinstance(value, type)) or "none"
        raise ElementMissing(f"{element}.py defines no class {name}; classes there: {defined}") from None
    return element_class()


def class_names(estimator: Any, y: Any, columns: int) -> list[str] | None:
    """What the columns of a classifier's probabilities stand for; None if nothing tells.

    The classifier's ``classes_`` if there are as many, else the fold's distinct labels if there are as many.

    Args:
        estimator: the fitted classifier; None where only the dataset's own code knows it.
        y: labels of the fold's training rows; several columns of them are no classes.
    """
    known = getattr(estimator, "classes_", None)
    if known is not None and np.ndim(known) == 1 and len(known) == columns:
        return [str(name) for name in known]
    if np.ndim(y) != 1:
        return None
    distinct = np.unique(np.asarray(y))
    return [str(name) for name in distinct] if len(distinct) == columns else None
