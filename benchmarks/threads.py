"""Two folds at once of a model that uses threads: in the daemon's slots, and in processes with default thread counts.

Each library takes all cores by default, so two processes get in each other's way; a slot's libraries keep to its cores.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from benchmarks.live_daemon import LiveDaemon
from benchmarks.rounds import in_turn, table
from datarun_daemon.client.packing import pack

#: BLAS calls that are too small to gain by a second thread, as many models make them
_CLASSIFIER = """\
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import scale


class Classifier:
    def fit(self, X, y):
        X, y = load_breast_cancer(return_X_y=True)
        for _ in range(20):
            LogisticRegression(max_iter=3000, C=1e3).fit(scale(X), y)

    def predict_proba(self, X):
        return np.full((len(X), 2), 0.5)
"""
_ALONE = """
import time
Classifier().fit(None, None)
start = time.monotonic()
Classifier().fit(None, None)
print(time.monotonic() - start)
"""
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def measure(*, rounds: int, folder: Path) -> str:
    """A table of both."""
    data = folder / "bundles" / "any"
    data.mkdir(parents=True)
    (data / "any.csv").write_text("a,target\n" + "".join(f"{row},{row % 2}\n" for row in range(40)))
    manifest = {
        "name": "any", "target_column": "target", "workflow_elements": ["classifier"], "data_file": "any.csv",
        "split": {"held_out_test": 0.5},
    }  # fmt: skip
    (data / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    pack(data)
    with LiveDaemon(folder, slots=2) as daemon:
        daemon.drop(data, "datasets", "any")
        turns = itertools.count()
        contestants = {
            "datarun, 2 slots": lambda: _in_slots(daemon, folder, next(turns)),
            "2 processes, default threads": _alone,
        }
        for warm_up in contestants.values():
            warm_up()
        figures = in_turn(contestants, rounds=rounds)
    title = "20 fits of a logistic regression, two at once"
    return table(title, "folds/s", figures, against="2 processes, default threads")


def _in_slots(daemon: LiveDaemon, folder: Path, turn: int) -> float:
    name = f"threads-{turn}"
    bundle = folder / "bundles" / name
    bundle.mkdir()
    (bundle / "classifier.py").write_text(_CLASSIFIER)
    folds = [{"id": f"{name}-{k}", "train_is": list(range(10)), "test_is": list(range(10, 20))} for k in range(2)]
    part = {"id": name, "dataset": "any", "files": ["classifier.py"]}
    (bundle / "manifest.yaml").write_text(yaml.safe_dump({"submission": part, "folds": folds}))
    pack(bundle)
    daemon.drop(bundle, "folds", name)
    results = [daemon.result("any", name, f"{name}-{k}") for k in range(2)]
    daemon.wait_for(results, poll_seconds=0.02)
    daemon.check_tested(results)
    return 2 / max(json.loads(path.read_text())["train_seconds"] for path in results)


def _alone() -> float:
    environment = {name: value for name, value in os.environ.items() if name not in _THREADS}
    command = [sys.executable, "-c", _CLASSIFIER + _ALONE]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    return 2 / max(float(process.communicate()[0]) for process in both)
