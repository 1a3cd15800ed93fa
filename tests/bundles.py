"""Bundles made for tests: small, of scikit-learn's own data, with or without digests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from sklearn.datasets import load_iris

from datarun_daemon.client.packing import pack

FOREST = """\
from sklearn.ensemble import RandomForestClassifier


class Classifier:
    def __init__(self):
        self.forest = RandomForestClassifier(n_estimators=10, random_state=0)

    def fit(self, X, y):
        self.forest.fit(X, y)

    def predict_proba(self, X):
        return self.forest.predict_proba(X)
"""
#: sleeps first, so that it can be caught running
SLOW = "import time\nSECONDS = {seconds}\n" + FOREST.replace(
    "        self.forest.fit(X, y)", "        time.sleep(SECONDS)\n        self.forest.fit(X, y)"
)


def slow(seconds: float) -> str:
    return SLOW.format(seconds=seconds)


def write_bundle(folder: Path, manifest: Mapping[str, Any], files: Mapping[str, str], *, packed: bool) -> Path:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    (folder / "manifest.yaml").write_text(yaml.safe_dump(dict(manifest), sort_keys=False))
    if packed:
        pack(folder)
    return folder


def iris_bundle(
    folder: Path,
    *,
    name: str = "iris",
    elements: Sequence[str] = ("classifier",),
    split: Mapping[str, Any] | None = None,
    packed: bool = True,
) -> Path:
    """The iris dataset; half of its rows are held out unless ``split`` says otherwise."""
    frame = load_iris(as_frame=True)
    data = frame.data.assign(species=frame.target_names[frame.target])
    manifest: dict[str, Any] = {
        "name": name,
        "target_column": "species",
        "workflow_elements": list(elements),
        "data_file": "iris.csv",
    }
    split = {"held_out_test": 0.5, "random_state": 42} if split is None else split
    if split:
        manifest["split"] = dict(split)
    return write_bundle(folder, manifest, {"iris.csv": data.to_csv(index=False)}, packed=packed)


def fold_bundle(
    folder: Path,
    ids: Sequence[int | str],
    *,
    submission: int | str,
    dataset: str | None = "iris",
    code: str = FOREST,
    priority: str = "L",
    packed: bool = True,
    **more: Any,
) -> Path:
    """Folds of a submission that train on rows 0 to 59 and validate on 60 to 74, one after the other."""
    files = {"classifier.py": code} if dataset else {}
    part: dict[str, Any] = {"id": submission}
    if dataset:
        part |= {"dataset": dataset, "files": list(files)}
    folds = [{"id": fold, "train_is": list(range(60)), "test_is": list(range(60, 75))} for fold in ids]
    manifest = {"submission": part, "folds": folds, "priority": priority, **more}
    return write_bundle(folder, manifest, files, packed=packed)
