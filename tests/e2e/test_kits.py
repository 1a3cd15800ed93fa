"""``datarun kit``, and a daemon that runs what it sends: in the outbox is what ``ramp-test`` would have said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from datarun_daemon.client import Spool
from tests.daemon_process import RunningDaemon, wait_for
from tests.runner.kits import CASES, NUMBERS, Case, assert_same, folds_of, kit_of, ramp_test

DATARUN = Path(sys.executable).parent / "datarun"


#: what X holds is where the pictures are, and their names
PICTURES = NUMBERS + """
Predictions = rw.prediction_types.make_multiclass(label_names=["even", "odd"])
score_types = [rw.score_types.Accuracy(name="acc")]
workflow = rw.workflows.SimplifiedImageClassifier(n_classes=2)
def get_train_data(path="."): return data(path, 0, 30)
def get_test_data(path="."): return data(path, 30, 42)
def get_cv(folder_X, y): return KFold(n_splits=2).split(y)
def data(path, first, last):
    labels = np.array(["even", "odd"], dtype=object)[np.arange(first, last) % 2]
    return (os.path.join(path, "data", "pictures"), np.array([f"{n}.txt" for n in range(first, last)])), labels
"""
READER = """\
import os
import numpy as np
class ImageClassifier:
    def fit(self, loader):
        self.mean = self.read(loader).mean()
    def predict_proba(self, loader):
        share = 1 / (1 + np.exp(self.mean - self.read(loader)))
        return np.column_stack([share, 1 - share])
    def read(self, loader):
        return np.array([np.loadtxt(os.path.join(loader.folder, name)).sum() for name in loader.X_array])
"""


def send(kit: Path, daemon: RunningDaemon, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(DATARUN), "kit", str(kit), "--submission", "mine", "--spool", str(daemon.spool.root), "--wait"]
    command += options
    return subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)


@pytest.mark.parametrize(
    "name",
    ["a pipeline over a table", "boxes on images", "a workflow that wants to know of the fold, over a list"],
)
def test_the_outbox_has_what_ramp_test_says(daemon: RunningDaemon, tmp_path: Path, name: str) -> None:
    kit = kit_of(CASES[name], tmp_path / "kit")
    expected = ramp_test(kit, tmp_path)

    done = send(kit, daemon)

    assert 0 == done.returncode, done.stdout + done.stderr
    for number, (fold, (full_train, test)) in enumerate(zip(folds_of(kit), expected, strict=True)):
        out = daemon.result_folder("kit", "kit-mine", f"kit-mine-{number}")
        result = json.loads((out / "result.json").read_text())
        assert ("TESTED", fold) == (result["state"], [result["train_is"], result["test_is"]])
        assert_same(full_train, out, "full_train_predictions")
        assert_same(test, out, "test_predictions")
        assert f"TESTED  {out}/" in done.stdout


def test_folds_read_files_of_the_kit_that_are_said_to_hold_no_labels(daemon: RunningDaemon, tmp_path: Path) -> None:
    pictures = {f"data/pictures/{n}.txt": f"{n} {n * n}\n" for n in range(42)}
    kit = kit_of(Case(PICTURES, {"image_classifier.py": READER}, pictures), tmp_path / "kit")
    expected = ramp_test(kit, tmp_path)

    done = send(kit, daemon, "--fold-files", "data/pictures/")

    assert 0 == done.returncode, done.stdout + done.stderr
    for number, (full_train, test) in enumerate(expected):
        out = daemon.result_folder("kit", "kit-mine", f"kit-mine-{number}")
        assert_same(full_train, out, "full_train_predictions")
        assert_same(test, out, "test_predictions")


def test_fold_files_that_are_not_there_make_the_split_fail(daemon: RunningDaemon, tmp_path: Path) -> None:
    kit = kit_of(CASES["a pipeline over a table"], tmp_path / "kit")

    send(kit, daemon, "--fold-files", "data/nothing")

    failed = wait_for(lambda: daemon.catalog("DatasetSplitFailed"), "the failed split")[0]
    assert "there is no file or folder data/nothing in the kit" in failed["reason"]


def test_predictions_that_are_no_numbers_reach_a_client_as_lists(daemon: RunningDaemon, tmp_path: Path) -> None:
    kit = kit_of(CASES["boxes on images"], tmp_path / "kit")
    assert 0 == send(kit, daemon).returncode
    out = daemon.result_folder("kit", "kit-mine", "kit-mine-0")
    expected = json.loads((out / "test_predictions.json").read_text())

    found = Spool(daemon.spool.root).predictions(["kit-mine-0"])["kit-mine-0"]

    assert expected == found.test
    assert isinstance(found.full_train, list)
    assert len(found.full_train) == found.result["n_train"]


def test_a_kit_without_a_test_set_ends_well_without_test_predictions(daemon: RunningDaemon, tmp_path: Path) -> None:
    case = CASES["a pipeline over a table"]
    problem = case.problem.replace('return _read(path, "test.csv")', "return None, None")
    kit = kit_of(Case(problem, case.files), tmp_path / "kit")
    expected = ramp_test(kit, tmp_path)

    done = send(kit, daemon)

    assert 0 == done.returncode, done.stdout + done.stderr
    for number, (full_train, _) in enumerate(expected):
        out = daemon.result_folder("kit", "kit-mine", f"kit-mine-{number}")
        result = json.loads((out / "result.json").read_text())
        assert ("VALIDATED_ONLY", 40, 0) == (result["state"], result["n_train"], result["n_test"])
        assert_same(full_train, out, "full_train_predictions")
        assert_same(None, out, "test_predictions")
