"""What the REST service did wrong, one test for each line of the list of what is mended, in its order."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sklearn.datasets import load_iris

from tests.bundles import FOREST, fold_bundle, iris_bundle, slow, write_bundle
from tests.daemon_process import RunningDaemon, wait_for

ROWS = {"train_is": list(range(60)), "test_is": list(range(60, 75))}
RETURNS = """\
import numpy as np
import pandas as pd


class Classifier:
    def fit(self, X, y):
        pass

    def predict_proba(self, X):
        return {expression}
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """One daemon for all tests, with iris split in halves."""
    folder = tmp_path_factory.mktemp("service")
    limits = {"wall_soft_seconds": 2, "wall_hard_seconds": 4}
    daemon = RunningDaemon(folder, priorities={"H": limits}).start()
    daemon.drop(iris_bundle(folder / "iris"), "datasets")
    yield daemon
    daemon.end()


def run(service: RunningDaemon, folder: Path, name: str, code: str = FOREST, **more: Any) -> dict[str, Any]:
    """The result of the one fold of a submission; both have this name."""
    service.drop(fold_bundle(folder / name, [name], submission=name, code=code, **more), "folds")
    return service.wait_for_result("iris", name, name)


def ask(service: RunningDaemon, folder: Path, name: str, **fields: Any) -> dict[str, Any]:
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(fields))
    service.drop(file, "requests")
    return service.wait_for_receipt("requests", name)


def test_integers_come_back_as_integers_with_their_shape_and_objects_are_an_error_that_says_what_came(
    service: RunningDaemon, tmp_path: Path
):
    result = run(service, tmp_path, "integers", RETURNS.format(expression="np.arange(len(X) * 3).reshape(-1, 3)"))
    array = np.load(service.result_folder("iris", "integers", "integers") / "test_predictions.npy", allow_pickle=False)
    assert (result["state"], array.dtype.kind, array.shape) == ("TESTED", "i", (75, 3))

    objects = run(service, tmp_path, "objects", RETURNS.format(expression="np.array([object()] * len(X))"))
    assert (objects["state"], objects["stage"]) == ("ERROR", "validation")
    assert "dtype object instead of an array of numbers" in objects["message"]


@pytest.mark.parametrize(
    ("name", "expression"), [("list", "[[0.5, 0.25, 0.25]] * len(X)"), ("frame", "pd.DataFrame({'a': [1.0] * len(X)})")]
)
def test_a_list_or_a_dataframe_is_a_prediction(service: RunningDaemon, tmp_path: Path, name: str, expression: str):
    assert run(service, tmp_path, name, RETURNS.format(expression=expression))["state"] == "TESTED"


def test_a_wrong_size_at_validation_ends_in_error_and_later_folds_are_saved(service: RunningDaemon, tmp_path: Path):
    wrong = run(service, tmp_path, "short", RETURNS.format(expression="np.zeros((60, 3))"))
    assert wrong["state"] == "ERROR"
    assert wrong["log_messages"] == "Wrong full train prediction size: \n60 instead of 75 \n - ERROR(validation)\n"

    assert run(service, tmp_path, "later")["state"] == "TESTED"


def test_bad_row_numbers_are_rejected_at_the_door_and_the_hard_limit_and_a_dead_worker_leave_no_fold_todo(
    service: RunningDaemon, tmp_path: Path
):
    bad = fold_bundle(tmp_path / "bad-rows", ["x"], submission="x")
    manifest = yaml.safe_load((bad / "manifest.yaml").read_text())
    manifest["folds"][0]["train_is"] = [0, 1, 700]
    (bad / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    service.drop(bad, "folds")
    receipt = service.wait_for_receipt("folds", "bad-rows", status="rejected")
    assert receipt["problems"][0]["field"].startswith("folds[0].train_is")

    deaf = "import time\nclass Classifier:\n    def fit(self, X, y):\n        while True:\n            try:\n"
    deaf += "                time.sleep(600)\n            except BaseException:\n                pass\n"
    stuck = run(service, tmp_path, "stuck", deaf, priority="H")
    assert (stuck["state"], stuck["message"]) == ("ERROR", "Hard Time Limit Exceeded (4 s)")

    service.drop(fold_bundle(tmp_path / "dead", ["dead"], submission="dead", code=slow(3)), "folds")
    wait_for(lambda: [x for x in service.catalog("FoldStarted") if x["fold"] == "dead"], "the fold to start")
    for process in service.process.children(recursive=True):
        if process.name() == "datarun-keeper":
            process.kill()
    assert service.wait_for_result("iris", "dead", "dead")["attempt"] == 2


def test_a_forced_resubmission_runs_the_new_code(service: RunningDaemon, tmp_path: Path):
    first = run(service, tmp_path, "again", RETURNS.format(expression="np.full((len(X), 3), 1.0)"))
    new = RETURNS.format(expression="np.full((len(X), 3), 2.0)")
    forced = fold_bundle(
        tmp_path / "forced", ["again"], submission="again", code=new, force="submission, submission_fold"
    )
    service.drop(forced, "folds")

    wait_for(lambda: service.wait_for_result("iris", "again", "again")["attempt"] == 2, "the second result")
    second = service.wait_for_result("iris", "again", "again")
    array = np.load(service.result_folder("iris", "again", "again") / "test_predictions.npy")
    assert first["submission_sha256"] != second["submission_sha256"]
    assert (array == 2.0).all()


def test_a_feature_extractor_with_a_calibrator_works_on_csv_data(service: RunningDaemon, tmp_path: Path):
    elements = ["feature_extractor", "classifier", "calibrator"]
    service.drop(iris_bundle(tmp_path / "calibrated", name="calibrated", elements=elements), "datasets")
    files = {
        "feature_extractor.py": "class FeatureExtractor:\n    def fit(self, X, y):\n        pass\n\n"
        "    def transform(self, X):\n        return X.to_numpy()\n",
        "classifier.py": FOREST,
        "calibrator.py": "class Calibrator:\n    def fit(self, X, y):\n        assert len(X) == len(y) == 6\n\n"
        "    def predict_proba(self, X):\n        return X\n",
    }
    manifest = {
        "submission": {"id": "cal", "dataset": "calibrated", "files": list(files)},
        "folds": [{"id": "cal", **ROWS}],
    }
    service.drop(write_bundle(tmp_path / "cal", manifest, files, packed=True), "folds")

    assert service.wait_for_result("calibrated", "cal", "cal")["state"] == "TESTED"


@pytest.mark.parametrize("elements", [["clasifier"], ["calibrator"], ["classifier", "regressor"]])
def test_unknown_or_impossible_elements_are_rejected_with_the_dataset(
    service: RunningDaemon, tmp_path: Path, elements: list[str]
):
    name = "-".join(elements)
    service.drop(iris_bundle(tmp_path / name, name=name, elements=elements, packed=False), "datasets")

    receipt = service.wait_for_receipt("datasets", name, status="rejected")

    assert receipt["problems"][0]["field"] == "workflow_elements"
    assert elements[0] in receipt["problems"][0]["found"]


def test_the_split_is_reported_folds_wait_for_it_and_a_failed_one_says_why(service: RunningDaemon, tmp_path: Path):
    service.drop(iris_bundle(tmp_path / "late", name="late", split={}), "datasets")
    assert "not asked for" in service.wait_for_receipt("datasets", "late")["split"]
    service.drop(fold_bundle(tmp_path / "waits", ["waits"], submission="waits", dataset="late"), "folds")
    service.wait_for_receipt("folds", "waits")
    ask(service, tmp_path, "split-late", action="split", dataset="late", held_out_test=0.5)
    assert service.wait_for_result("late", "waits", "waits")["state"] == "TESTED"
    assert service.receipt("requests", "split-late")["split"] == "done"  # type: ignore[index]

    broken = iris_bundle(tmp_path / "broken", name="broken", packed=False)
    text = (broken / "iris.csv").read_text()
    (broken / "iris.csv").write_text(text.replace("species", "kind", 1))
    service.drop(broken, "datasets")
    service.drop(fold_bundle(tmp_path / "fails", ["fails"], submission="fails", dataset="broken"), "folds")
    result = service.wait_for_result("broken", "fails", "fails")
    assert (result["state"], result["stage"]) == ("ERROR", "data")
    assert "species" in result["message"]
    assert result["log_messages"].endswith(" - ERROR(split data)\n")
    failed = wait_for(lambda: (r := service.receipt("datasets", "broken")) and "reason" in r and r, "the receipt")
    assert (failed["split"], "species" in failed["reason"]) == ("failed", True)


def test_force_submission_fold_runs_that_fold_again_and_keeps_the_others_and_every_attempt(
    service: RunningDaemon, tmp_path: Path
):
    service.drop(fold_bundle(tmp_path / "two", ["f1", "f2"], submission="two"), "folds")
    for fold in ("f1", "f2"):
        service.wait_for_result("iris", "two", fold)

    service.drop(fold_bundle(tmp_path / "f1", ["f1"], submission="two", dataset=None, force="submission_fold"), "folds")

    wait_for(lambda: service.wait_for_result("iris", "two", "f1")["attempt"] == 2, "the second result")
    assert service.wait_for_result("iris", "two", "f2")["attempt"] == 1
    archived = service.spool.results / "iris" / "two"
    assert sorted(p.parent.relative_to(archived).as_posix() for p in archived.rglob("result.json")) == [
        "f1/1", "f1/2", "f2/1",
    ]  # fmt: skip


def test_force_is_no_substring_test(service: RunningDaemon, tmp_path: Path):
    bundle = fold_bundle(tmp_path / "substring", ["s"], submission="s", packed=False, force="resubmission_folds")
    service.drop(bundle, "folds")

    assert service.wait_for_receipt("folds", "substring", status="rejected")["problems"][0]["field"] == "force"


@pytest.mark.parametrize(("word", "letter"), [("H", "H"), ("L", "L"), ("high", "H"), ("low", "L")])
def test_priorities_h_and_l_and_high_and_low_work(service: RunningDaemon, tmp_path: Path, word: str, letter: str):
    assert run(service, tmp_path, f"priority-{word}", priority=word)["priority"] == letter


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"state": "TESTED"}, "folds[0].state"),
        ({"test_predictions": "eJw="}, "folds[0].test_predictions"),
        ({"train_is": "not*base64"}, "folds[0].train_is"),
    ],
)
def test_a_client_can_not_set_state_or_predictions_and_bad_base64_is_named(
    service: RunningDaemon, tmp_path: Path, change: dict[str, Any], field: str
):
    name = f"sets-{next(iter(change))}"
    bundle = fold_bundle(tmp_path / name, [name], submission=name, packed=False)
    manifest = yaml.safe_load((bundle / "manifest.yaml").read_text())
    manifest["folds"][0] |= change
    (bundle / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    service.drop(bundle, "folds")

    receipt = service.wait_for_receipt("folds", name, status="rejected")

    assert field in [problem["field"] for problem in receipt["problems"]]


def test_a_name_that_leads_out_of_the_bundle_is_refused(service: RunningDaemon, tmp_path: Path):
    bundle = fold_bundle(tmp_path / "escape", ["e"], submission="e", packed=False)
    manifest = yaml.safe_load((bundle / "manifest.yaml").read_text())
    manifest["submission"]["files"] = ["classifier.py", "../classifier.py"]
    (bundle / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    service.drop(bundle, "folds")

    receipt = service.wait_for_receipt("folds", "escape", status="rejected")

    assert receipt["problems"][0]["field"] == "submission.files[1]"


def test_asking_early_delivers_nothing_and_errors_are_results_too(service: RunningDaemon, tmp_path: Path):
    service.drop(fold_bundle(tmp_path / "early", ["early"], submission="early", code=slow(2)), "folds")
    service.wait_for_receipt("folds", "early")
    ask(service, tmp_path, "too-early", action="predictions", folds=["early"])
    failed = run(service, tmp_path, "fails-too", "raise ValueError('no')")
    assert failed["state"] == "ERROR"

    result = service.wait_for_result("iris", "early", "early")

    assert (result["state"], result["new"]) == ("TESTED", True)
    ask(service, tmp_path, "all-new", action="predictions", new=True)
    file = service.spool.outbox / "requests" / "all-new" / "predictions.json"
    wait_for(file.exists, str(file))
    answer = {fold["id"]: fold for fold in json.loads(file.read_text())["folds"]}
    assert (answer["early"]["state"], answer["fails-too"]["state"]) == ("TESTED", "ERROR")


def test_the_soft_limit_is_an_error_of_the_phase_it_struck_in(service: RunningDaemon, tmp_path: Path):
    result = run(service, tmp_path, "slow", slow(60), priority="H")

    assert (result["state"], result["stage"]) == ("ERROR", "train")
    assert "Soft Time Limit Exceeded" in result["message"]
    assert result["log_messages"].endswith(" - ERROR(train)\n")


def test_memory_is_the_folds_own_peak_train_and_test_apart(service: RunningDaemon, tmp_path: Path):
    fit = "        self.forest.fit(X, y)"
    hungry = FOREST.replace(fit, f"        import numpy\n        numpy.ones(25_000_000)\n{fit}")
    large = run(service, tmp_path, "hungry", hungry)
    small = run(service, tmp_path, "modest")

    assert large["train_peak_bytes"] > 190e6
    assert large["test_peak_bytes"] < 100e6
    assert small["train_peak_bytes"] < 100e6


def test_the_held_out_test_set_has_as_many_rows_as_the_ceiling_of_its_share(service: RunningDaemon, tmp_path: Path):
    share = 0.31
    service.drop(iris_bundle(tmp_path / "ceil", name="ceil", split={"held_out_test": share}), "datasets")
    receipt = wait_for(lambda: (r := service.receipt("datasets", "ceil")) and "n_test" in r and r, "the split")

    assert receipt["n_test"] == math.ceil(len(load_iris().target) * share)
