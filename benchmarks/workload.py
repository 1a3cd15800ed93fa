"""The folds that every contestant runs: a random forest on scikit-learn's own data."""

from __future__ import annotations

import base64
import sys
import zlib
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from datarun_daemon.client.packing import pack

#: name of the workload: (scikit-learn's dataset, trees of the forest, share held out)
WORKLOADS = {"iris": ("iris", 10, 0.5), "digits": ("digits", 100, 0.3), "digits-long": ("digits", 1000, 0.3)}
#: folds that a bundle brings, and a submission has
PER_BUNDLE = 5

CLASSIFIER = """\
from sklearn.ensemble import RandomForestClassifier


class Classifier:
    def fit(self, X, y):
        self.forest = RandomForestClassifier(n_estimators={trees}, random_state=0).fit(X, y)

    def predict_proba(self, X):
        return self.forest.predict_proba(X)
"""


def write_csv(name: str, path: Path) -> None:
    from sklearn import datasets

    frame = getattr(datasets, f"load_{WORKLOADS[name][0]}")(as_frame=True)
    frame.data.assign(target=frame.target).to_csv(path, index=False)


def write_dataset(name: str, folder: Path) -> Path:
    folder.mkdir(parents=True)
    write_csv(name, folder / "data.csv")
    manifest = {
        "name": name,
        "target_column": "target",
        "workflow_elements": ["classifier"],
        "data_file": "data.csv",
        "split": {"held_out_test": WORKLOADS[name][2], "random_state": 42},
    }
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    pack(folder)
    return folder


def write_folds(name: str, folder: Path, submission: str, number: int, *, n_train: int) -> Path:
    """A bundle of ``number`` folds; each trains on four fifths of the ``n_train`` rows."""
    folder.mkdir(parents=True)
    write_classifier(name, folder)
    parts = ({name: packed(part) for name, part in rows(n_train, k).items()} for k in range(number))
    folds = [{"id": f"{submission}-{k}", **part} for k, part in enumerate(parts)]
    part = {"id": submission, "dataset": name, "files": ["classifier.py"]}
    (folder / "manifest.yaml").write_text(yaml.safe_dump({"submission": part, "folds": folds}))
    pack(folder)
    return folder


def write_classifier(name: str, folder: Path) -> None:
    (folder / "classifier.py").write_text(CLASSIFIER.format(trees=WORKLOADS[name][1]))


def rows(n_train: int, number: int) -> dict[str, list[int]]:
    """train_is and test_is: every fifth row, from ``number`` on, is for validation."""
    test_is = list(range(number % 5, n_train, 5))
    chosen = set(test_is)
    return {"train_is": [row for row in range(n_train) if row not in chosen], "test_is": test_is}


def packed(row_numbers: Sequence[int]) -> str:
    """As clients of the REST API send them: base64(zlib(int64))."""
    return base64.b64encode(zlib.compress(array("q", row_numbers).tobytes())).decode()


def split(name: str, csv: Path) -> tuple[Any, Any, Any]:
    """X_train, y_train, X_test as the daemon has them."""
    import numpy as np
    import pandas as pd
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(pd.read_csv(csv), test_size=WORKLOADS[name][2], random_state=42)
    return train.drop(columns="target").to_numpy(), np.asarray(train["target"]), test.drop(columns="target").to_numpy()


def run_fold(name: str, data: tuple[Any, Any, Any], train_is: Sequence[int], folder: Path) -> None:
    """One fold as a script would run it: fit, predict both sets, save."""
    import numpy as np
    from sklearn.ensemble import RandomForestClassifier

    X_train, y_train, X_test = data
    forest = RandomForestClassifier(n_estimators=WORKLOADS[name][1], random_state=0)
    forest.fit(X_train[train_is], y_train[train_is])
    folder.mkdir(parents=True)
    np.save(folder / "full_train_predictions.npy", forest.predict_proba(X_train))
    np.save(folder / "test_predictions.npy", forest.predict_proba(X_test))


if __name__ == "__main__":
    # the cold contestant: a process that does one fold
    _, workload, csv_path, fold_number, out = sys.argv
    loaded = split(workload, Path(csv_path))
    run_fold(workload, loaded, rows(len(loaded[0]), int(fold_number))["train_is"], Path(out))
