"""The rules of training and testing that the REST service had, kept: one test each, where no other file names them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split

from tests.bundles import FOREST, fold_bundle, iris_bundle
from tests.daemon_process import RunningDaemon


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    folder = tmp_path_factory.mktemp("service")
    daemon = RunningDaemon(folder).start()
    daemon.drop(iris_bundle(folder / "iris"), "datasets")
    yield daemon
    daemon.end()


def run(service: RunningDaemon, folder: Path, name: str, **fold: Any) -> tuple[dict[str, Any], Path]:
    """The result of the one fold of a submission, with these fields of its own, and its folder."""
    bundle = fold_bundle(folder / name, [name], submission=name, code=FOREST, packed=False)
    manifest = yaml.safe_load((bundle / "manifest.yaml").read_text())
    manifest["folds"][0] |= fold
    (bundle / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    service.drop(bundle, "folds")
    return service.wait_for_result("iris", name, name), service.result_folder("iris", name, name)


def test_the_standard_split_is_train_test_split_on_the_rows_of_the_csv(service: RunningDaemon, tmp_path: Path):
    _, out = run(service, tmp_path, "split")
    frame = load_iris(as_frame=True)
    data = frame.data.assign(species=frame.target_names[frame.target])
    train, test = train_test_split(data, test_size=0.5, random_state=42)
    namespace: dict[str, Any] = {}
    exec(FOREST, namespace)
    classifier = namespace["Classifier"]()

    classifier.fit(train.drop(columns="species").values[:60], train["species"].values[:60])

    wanted = classifier.predict_proba(test.drop(columns="species").values)
    assert np.array_equal(np.load(out / "test_predictions.npy"), wanted)


def test_test_is_is_stored_and_selects_nothing_when_training(service: RunningDaemon, tmp_path: Path):
    one, of_one = run(service, tmp_path, "one", test_is=[70, 71])
    other, of_other = run(service, tmp_path, "other", test_is=[60, 65, 74])

    assert (one["test_is"], other["test_is"]) == ([70, 71], [60, 65, 74])
    for name in ("full_train_predictions.npy", "test_predictions.npy"):
        assert (of_one / name).read_bytes() == (of_other / name).read_bytes()


def test_full_train_predictions_cover_all_training_rows_and_test_predictions_the_held_out_set(
    service: RunningDaemon, tmp_path: Path
):
    result, out = run(service, tmp_path, "rows", train_is=list(range(5, 55)))

    assert len(np.load(out / "full_train_predictions.npy")) == result["n_train"] == 75
    assert len(np.load(out / "test_predictions.npy")) == result["n_test"] == 75


def test_the_columns_of_probabilities_are_the_classes_in_the_classifiers_order(service: RunningDaemon, tmp_path: Path):
    result, out = run(service, tmp_path, "columns")

    table = pd.read_csv(out / "test_predictions.csv")

    assert list(table.columns) == ["row", "setosa", "versicolor", "virginica"] == ["row", *result["classes"]]
    assert np.array_equal(table.drop(columns="row").values, np.load(out / "test_predictions.npy"))


def test_exceptions_leave_their_traceback_and_the_tag_of_their_phase(service: RunningDaemon, tmp_path: Path):
    raising = "if len(X) == 75: raise ValueError('not today')\n        return self.forest"
    code = FOREST.replace("return self.forest", raising)
    bundle = fold_bundle(tmp_path / "raises", ["raises"], submission="raises", code=code)
    service.drop(bundle, "folds")

    result = service.wait_for_result("iris", "raises", "raises")

    assert (result["state"], result["stage"]) == ("ERROR", "validation")
    assert "classifier.py" in result["log_messages"]
    assert result["log_messages"].endswith("ValueError: not today\n - ERROR(validation)\n")
