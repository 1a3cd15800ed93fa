"""From a folder dropped into incoming/ to predictions in outbox/."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import ShuffleSplit, train_test_split

from tests.bundles import FOREST, fold_bundle, iris_bundle, write_bundle
from tests.conftest import StartDaemon
from tests.daemon_process import RunningDaemon, wait_for


def test_iris_gives_bit_for_bit_the_probabilities_of_a_plain_script(daemon: RunningDaemon, tmp_path: Path):
    frame = load_iris(as_frame=True)
    data = frame.data.assign(species=frame.target_names[frame.target])
    (tmp_path / "iris.csv").write_text(data.to_csv(index=False))
    rows = pd.read_csv(tmp_path / "iris.csv")
    train, test = train_test_split(rows, test_size=0.5, random_state=42)
    X, y = train.drop(columns="species").to_numpy(), np.asarray(train["species"])
    train_is, test_is = next(ShuffleSplit(random_state=42).split(X))
    forest = RandomForestClassifier(n_estimators=10, random_state=0).fit(X[train_is], y[train_is])
    bundle = fold_bundle(tmp_path / "team_a", [], submission=24, packed=False)
    np.save(bundle / "train.npy", train_is)
    np.save(bundle / "test.npy", test_is)
    manifest = {
        "submission": {"id": 24, "dataset": "iris", "files": ["classifier.py"]},
        "folds": [{"id": 11, "train_is": "train.npy", "test_is": "test.npy"}],
    }
    (bundle / "manifest.yaml").write_text(json.dumps(manifest))

    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    daemon.drop(bundle, "folds")
    result = daemon.wait_for_result("iris", "24", 11)

    assert result["state"] == "TESTED", result["log_messages"]
    folder = daemon.result_folder("iris", "24", 11)
    X_test = test.drop(columns="species").to_numpy()
    assert np.array_equal(forest.predict_proba(X), np.load(folder / "full_train_predictions.npy"))
    assert np.array_equal(forest.predict_proba(X_test), np.load(folder / "test_predictions.npy"))
    with (folder / "test_predictions.csv").open() as file:
        header, *lines = csv.reader(file)
    assert header == ["row", *forest.classes_]
    assert [int(line[0]) for line in lines] == list(range(75))
    assert np.array_equal(forest.predict_proba(X_test), np.array([line[1:] for line in lines], float))
    assert (result["train_is"], result["test_is"]) == (train_is.tolist(), test_is.tolist())


def test_result_json_tells_everything_that_the_rest_api_told_and_more(daemon: RunningDaemon, tmp_path: Path):
    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    daemon.drop(fold_bundle(tmp_path / "team_a", [11], submission=24, priority="H"), "folds")

    result = daemon.wait_for_result("iris", "24", 11)

    assert (result["id"], result["submission"], result["dataset"]) == (11, 24, "iris")
    assert (result["state"], result["stage"], result["log_messages"]) == ("TESTED", None, "")
    assert (result["priority"], result["attempt"], result["new"]) == ("H", 1, True)
    for phase in ("train", "validation", "test"):
        assert result[f"{phase}_seconds"] > 0
        assert result[f"{phase}_cpu_seconds"] >= 0
        assert result[f"{phase}_peak_bytes"] >= 0
    assert {"numpy", "pandas", "scikit-learn"} <= set(result["packages"])
    assert result["limits"]["memory_bytes"] > 0
    assert result["isolation"]
    assert set(result["files"]) == {
        "full_train_predictions.csv", "full_train_predictions.npy", "log.txt",
        "test_predictions.csv", "test_predictions.npy",
    }  # fmt: skip
    assert len(result["dataset_sha256"]) == len(result["submission_sha256"]) == 64


@pytest.mark.parametrize("packed", [True, False], ids=["digests", "settling"])
@pytest.mark.parametrize("command", [["cp", "-r"], ["rsync", "-a"]], ids=lambda command: command[0])
def test_bundles_copied_by_ordinary_programs_give_results(
    daemon: RunningDaemon, tmp_path: Path, command: list[str], packed: bool
):
    iris = iris_bundle(tmp_path / "iris", packed=packed)
    folds = fold_bundle(tmp_path / "team_a", [1, 2], submission=24, packed=packed)

    for source, kind in ((iris, "datasets"), (folds, "folds")):
        subprocess.run([*command, str(source), str(daemon.spool.root / "incoming" / kind)], check=True)

    assert daemon.wait_for_result("iris", "24", 1)["state"] == "TESTED"
    assert daemon.wait_for_result("iris", "24", 2)["state"] == "TESTED"
    wait_for(lambda: not list((daemon.spool.root / "incoming/folds").glob("[!R.]*")), "the bundle to be cleared")


def test_bundles_dropped_while_the_daemon_is_stopped_give_results(make_daemon: StartDaemon, tmp_path: Path):
    daemon = make_daemon()
    shutil.copytree(iris_bundle(tmp_path / "iris"), daemon.spool.root / "incoming/datasets/iris")
    shutil.copytree(fold_bundle(tmp_path / "a", [1], submission=24), daemon.spool.root / "incoming/folds/a")

    daemon.start()

    assert daemon.wait_for_result("iris", "24", 1)["state"] == "TESTED"


def test_a_fold_waits_visibly_for_its_dataset(daemon: RunningDaemon, tmp_path: Path):
    daemon.drop(fold_bundle(tmp_path / "team_a", [1], submission=24), "folds")
    receipt = daemon.wait_for_receipt("folds", "team_a")
    assert receipt["status"] == "accepted"
    assert "dataset iris (not here yet)" in json.dumps(receipt)
    wait_for(
        lambda: [row["waits_for"] for row in daemon.overview().get("queue", {}).get("folds", [])]
        == ["dataset iris (not here yet)"],
        "the fold in the overview",
    )

    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")

    assert daemon.wait_for_result("iris", "24", 1)["state"] == "TESTED"


def test_a_dataset_without_a_split_waits_for_a_split_request(daemon: RunningDaemon, tmp_path: Path):
    manifest = {
        "name": "iris", "target_column": "y", "workflow_elements": "classifier", "data_file": "d.csv",
    }  # fmt: skip
    lines = "a,b,y\n" + "".join(f"{n},{n % 7},{'uv'[n % 2]}\n" for n in range(200))
    daemon.drop(write_bundle(tmp_path / "iris", manifest, {"d.csv": lines}, packed=True), "datasets")
    daemon.drop(fold_bundle(tmp_path / "team_a", [1], submission=24), "folds")
    daemon.wait_for_receipt("folds", "team_a")
    request = tmp_path / "split.yaml"
    request.write_text("{action: split, dataset: iris, held_out_test: 0.25, random_state: 3}")

    daemon.drop(request, "requests")

    assert daemon.wait_for_receipt("requests", "split")["status"] == "accepted"
    result = daemon.wait_for_result("iris", "24", 1)
    assert (result["state"], result["n_train"], result["n_test"]) == ("TESTED", 150, 50)


def test_folds_are_generated_by_a_scikit_learn_splitter(daemon: RunningDaemon, tmp_path: Path):
    bundle = fold_bundle(tmp_path / "team_a", [], submission="forest", packed=False)
    cv = {"class": "ShuffleSplit", "n_splits": 3, "test_size": 0.2, "random_state": 57}
    part = {"id": "forest", "dataset": "iris", "files": ["classifier.py"]}
    (bundle / "manifest.yaml").write_text(json.dumps({"submission": part, "cv": cv}))
    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    daemon.drop(bundle, "folds")

    results = [daemon.wait_for_result("iris", "forest", f"forest-{number}") for number in range(3)]

    splits = list(ShuffleSplit(n_splits=3, test_size=0.2, random_state=57).split(np.zeros((75, 1))))
    assert [result["state"] for result in results] == ["TESTED"] * 3
    assert [result["train_is"] for result in results] == [train.tolist() for train, _ in splits]
    listed = wait_for(lambda: "forest-2" in json.dumps(daemon.receipt("folds", "team_a")), "the ids in the receipt")
    assert listed


@pytest.mark.parametrize("suffix", ["zip", "gztar"])
def test_a_bundle_may_be_an_archive(daemon: RunningDaemon, tmp_path: Path, suffix: str):
    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    fold_bundle(tmp_path / "src" / "team_a", [1], submission=24)

    archive = shutil.make_archive(str(tmp_path / "team_a"), suffix, tmp_path / "src" / "team_a")
    daemon.drop(Path(archive), "folds")

    assert daemon.wait_for_result("iris", "24", 1)["state"] == "TESTED"


def test_taking_a_result_away_makes_it_no_longer_new(daemon: RunningDaemon, tmp_path: Path):
    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    daemon.drop(fold_bundle(tmp_path / "team_a", [1, 2, 3], submission=24), "folds")
    for fold in (1, 2, 3):
        daemon.wait_for_result("iris", "24", fold)
    outbox = daemon.spool.root / "outbox"

    shutil.move(outbox / "iris/24/1", tmp_path / "taken")
    subprocess.run(
        ["rsync", "-a", "--remove-source-files", f"{outbox}/iris/24/2", str(tmp_path / "pulled")], check=True
    )

    def taken() -> set[str]:
        return {line["fold"] for line in daemon.catalog("FoldTaken")}

    wait_for(lambda: taken() == {"1", "2"}, "the two to be seen as taken")
    wait_for(lambda: not (outbox / "iris/24/2").exists(), "the empty folder to be pruned")
    assert (outbox / "iris/24/3/result.json").exists()
    wait_for(lambda: daemon.overview()["outbox"] == 1, "the overview")


def test_trained_and_validated_are_seen_while_the_fold_runs(daemon: RunningDaemon, tmp_path: Path):
    code = FOREST.replace("        return self", "        import time\n        time.sleep(1.5)\n        return self")
    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    daemon.drop(fold_bundle(tmp_path / "team_a", [1], submission=24, code=code), "folds")

    wait_for(lambda: daemon.catalog("FoldTrained"), "FoldTrained")
    assert daemon.catalog("FoldValidated") == []
    wait_for(
        lambda: any(run["phase"] == "validation" for run in daemon.overview().get("running", [])),
        "the phase in the overview",
    )
    wait_for(lambda: daemon.catalog("FoldValidated"), "FoldValidated")
    assert daemon.catalog("FoldTested") == []
    assert daemon.wait_for_result("iris", "24", 1)["state"] == "TESTED"


def test_a_second_daemon_refuses_naming_the_first(daemon: RunningDaemon):
    import sys

    command = [sys.executable, "-m", "datarun_daemon", "run", "--config", str(daemon.config)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert second.returncode == 75
    assert f"pid {daemon.process.pid}" in second.stderr
