"""RAMP kits whose submissions are deterministic, and what ``ramp-test`` says that these predict."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.kits import ESTIMATOR, PROBLEM, write_kit

RAMP_TEST = Path(sys.executable).parent / "ramp-test"
#: begins a problem.py over 30 training and 12 test rows of numbers
NUMBERS = """\
import os
import numpy as np
import pandas as pd
import rampwf as rw
from sklearn.model_selection import KFold
problem_title = "Numbers"
score_types = [rw.score_types.RMSE(name="rmse")]
def get_cv(X, y): return KFold(n_splits=2).split(y)
def get_train_data(path="."): return data(0, 30)
def get_test_data(path="."): return data(30, 42)
def numbers(first, last):
    rows = np.arange(first, last)
    return np.column_stack([rows % 7, rows * 0.5, np.sin(rows)])
"""
FOREST = """\
from sklearn.ensemble import RandomForest{kind}
class {kind}(RandomForest{kind}):
    def __init__(self):
        super().__init__(n_estimators=4, random_state=3)
"""
#: begins one with a workflow of its own
OWN = NUMBERS + "Predictions = rw.prediction_types.make_regression()\n"


@dataclass(frozen=True, slots=True)
class Case:
    """A kit with one submission that is deterministic."""

    problem: str
    files: Mapping[str, str]
    #: its other files
    more: Mapping[str, str] | None = None


CASES = {
    "a pipeline over a table": Case(PROBLEM, {"estimator.py": ESTIMATOR}),
    "a classifier": Case(
        NUMBERS
        + """
Predictions = rw.prediction_types.make_multiclass(label_names=["one", "other", "third"])
score_types = [rw.score_types.Accuracy(name="acc")]
workflow = rw.workflows.Classifier()
def data(first, last):
    return numbers(first, last), np.array(["one", "other", "third"], dtype=object)[np.arange(first, last) % 3]
""",
        {"classifier.py": FOREST.format(kind="Classifier")},
    ),
    "an xarray": Case(
        NUMBERS
        + """
import xarray as xr
Predictions = rw.prediction_types.make_multiclass(label_names=[0, 1, 2])
score_types = [rw.score_types.Accuracy(name="acc")]
workflow = rw.workflows.Classifier()
def data(first, last):
    X = xr.DataArray(numbers(first, last), dims=("time", "sensor"), coords={"time": np.arange(first, last)})
    return X, np.arange(first, last) % 3
""",
        {
            "classifier.py": FOREST.format(kind="Classifier")
            + "    def fit(self, X, y):\n        assert X.dims == ('time', 'sensor')\n"
            + "        return super().fit(X.values, y)\n"
            + "    def predict_proba(self, X):\n        return super().predict_proba(X.sel(sensor=[0, 1, 2]).values)\n"
        },
    ),
    "a feature extractor and a regressor": Case(
        NUMBERS
        + """
Predictions = rw.prediction_types.make_regression()
workflow = rw.workflows.FeatureExtractorRegressor()
def data(first, last):
    X = pd.DataFrame(numbers(first, last), columns=["a", "b", "c"], index=[f"r{n}" for n in range(first, last)])
    return X.assign(kind="k"), np.cos(np.arange(first, last))
""",
        {
            "feature_extractor.py": "class FeatureExtractor:\n    def fit(self, X_df, y): self.means = X_df[['a', 'b']]"
            ".mean()\n    def transform(self, X_df): return (X_df[['a', 'b']] - self.means).to_numpy()\n",
            "regressor.py": FOREST.format(kind="Regressor"),
        },
    ),
    "data that a submission brings along": Case(
        PROBLEM.replace("rw.workflows.Estimator()", "rw.workflows.EstimatorExternalData()"),
        {
            "external_data.csv": "width,weight\n" + "".join(f"{row}.5,{row * row % 5}\n" for row in range(7)),
            "estimator.py": """\
import os
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
def merged(X):
    brought = pd.read_csv(os.path.join(os.path.dirname(__file__), "external_data.csv"))
    return X.merge(brought, on="width", how="left")
def get_estimator():
    return make_pipeline(FunctionTransformer(merged), LogisticRegression())
""",
        },
    ),
    "two targets": Case(
        NUMBERS
        + """
Predictions = rw.prediction_types.make_regression(label_names=["height", "weight"])
workflow = rw.workflows.Estimator()
def data(first, last):
    X = numbers(first, last)
    return X, np.column_stack([X[:, 0] * 2, X[:, 1] + 1]).astype(np.float32)
""",
        {
            "estimator.py": "from sklearn.linear_model import LinearRegression\n"
            "def get_estimator(): return LinearRegression()\n"
        },
    ),
    "boxes on images": Case(
        NUMBERS
        + """
Predictions = rw.prediction_types.make_detection()
workflow = rw.workflows.ObjectDetector()
score_types = [rw.score_types.DetectionPrecision(name="precision")]
def data(first, last):
    y = np.empty(last - first, dtype=object)
    for row in range(first, last):
        y[row - first] = [(float(box), 5.0, 2.0 + row % 3) for box in range(row % 4)]
    return np.arange(first, last), y
""",
        {
            "object_detector.py": """\
import numpy as np
class ObjectDetector:
    def fit(self, X, y):
        self.radius = np.mean([radius for boxes in y for _, _, radius in boxes])
    def predict(self, X):
        found = np.empty(len(X), dtype=object)
        for place, row in enumerate(X):
            found[place] = [(np.float64(0.5), box, 5.0, self.radius / 3) for box in range(row % 4)]
        return found
"""
        },
    ),
    "a workflow that wants to know of the fold, over a list": Case(
        OWN
        + """
import helping
class workflow:
    def train_submission(module_path, X, y, train_is):
        return np.array([X[row]["t"] for row in train_is]).sum() + y[train_is].sum()
    def test_submission(trained, X, fold):
        of_fold = 0.0 if fold is None else helping.weight(*fold)
        return np.array([item["t"] * trained + of_fold for item in X], dtype=np.float32)
def data(first, last):
    return [helping.Item(t=row * 0.25) for row in range(first, last)], np.arange(first, last) * 0.1
""",
        {"any.py": ""},
        {
            "external_imports/helping/__init__.py": "from .weights import weight\nclass Item(dict): pass\n",
            "external_imports/helping/weights.py": "def weight(train_is, valid_is):\n"
            "    return train_is.sum() / 3 - valid_is.sum() * 7\n",
        },
    ),
    "pairs of arrays, and whole numbers predicted": Case(
        OWN
        + """
from beside import SCALE
class workflow:
    def train_submission(module_path, X, y, train_is): return y[train_is].sum() * SCALE
    def test_submission(trained, X): return (X[0] * trained + X[1]).astype(np.int16)
def data(first, last):
    return (np.arange(first, last), np.arange(first, last) % 5), pd.Series(np.arange(first, last), name="t")
""",
        {"any.py": ""},
        {"beside.py": "SCALE = 2\n"},
    ),
    "series longer than their labels": Case(
        OWN
        + """
class Series:
    n_burn_in = 4
    def __init__(self, values): self.values = values
class workflow:
    def train_submission(module_path, X, y, train_is): return X.values[train_is + 4].mean() * y[train_is].std()
    def test_submission(trained, X): return X.values[X.n_burn_in:] + trained
def data(first, last): return Series(np.sin(np.arange(first - 4, last))), np.cos(np.arange(first, last))
""",
        {"any.py": ""},
    ),
}  # fmt: skip


def kit_of(case: Case, folder: Path) -> Path:
    return write_kit(folder, problem=case.problem, submissions={"mine": case.files}, more=case.more)


def folds_of(kit: Path) -> list[list[list[int]]]:
    program = (
        "import json, sys; sys.path += ['external_imports', '.']; import problem; X, y = problem.get_train_data()\n"
        "print(json.dumps([[t.tolist(), v.tolist()] for t, v in problem.get_cv(X, y)]))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=kit, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def ramp_test(kit: Path, scratch: Path) -> list[tuple[Any, Any]]:
    """Predictions for the training set and the test set (None: there is none) of each fold, as ramp-test saves them."""
    copy = scratch / "ramp-test"
    shutil.copytree(kit, copy)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(copy)}
    command = [str(RAMP_TEST), "--submission", "mine", "--save-output"]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    folders = sorted((copy / "submissions/mine/training_output").glob("fold_*"))
    return [(_saved(folder / "y_pred_train.npz"), _saved(folder / "y_pred_test.npz")) for folder in folders]


def _saved(file: Path) -> Any:
    return np.load(file, allow_pickle=True)["y_pred"] if file.exists() else None


def assert_same(expected: Any, out: Path, name: str) -> None:
    if expected is None:
        assert [] == list(out.glob(f"{name}.*"))
    elif expected.dtype == object:
        assert [f"{name}.json"] == [path.name for path in out.glob(f"{name}.*")]
        items = [[list(map(float, box)) for box in boxes] for boxes in expected]
        assert items == json.loads((out / f"{name}.json").read_text())
    else:
        found = np.load(out / f"{name}.npy", allow_pickle=False)
        assert (expected.dtype, expected.shape) == (found.dtype, found.shape)
        assert np.ascontiguousarray(expected).tobytes() == found.tobytes()
