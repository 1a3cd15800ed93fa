"""The example that does what databoard did with the REST service, on a real daemon."""

from __future__ import annotations

import getpass
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris

from datarun_daemon.client import Spool
from tests.bundles import FOREST
from tests.daemon_process import RunningDaemon, wait_for

EXAMPLE = Path(__file__).parents[2] / "examples" / "databoard.py"
TOO_SHORT = FOREST.replace("return self.forest.predict_proba(X)", "return self.forest.predict_proba(X)[:75]")


@pytest.fixture
def databoard() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("databoard", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["databoard"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["databoard"]


def run_example(spool: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLE), str(spool), "--poll-seconds", "0.2", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def iris() -> Any:
    frame = load_iris(as_frame=True)
    return frame.data.assign(species=frame.target_names[frame.target])


def plain_scores(databoard: ModuleType, files: Sequence[Path]) -> list[tuple[float, float]]:
    """Accuracy on validation and test rows of what a plain script trains, with predictions bagged."""
    challenge = databoard.challenge_of(iris())
    train, test = databoard.train_test_split(
        iris().drop(columns="species"), test_size=databoard.HELD_OUT_TEST, random_state=databoard.RANDOM_STATE
    )
    scores = []
    for file in files:
        names: dict[str, Any] = {}
        exec(file.read_text(), names)
        on_train = np.zeros((len(train), 3))
        on_test = np.zeros((len(test), 3))
        for train_is, test_is in challenge.cv:
            model = names["Classifier"]()
            model.fit(train.to_numpy()[train_is], challenge.y_train[train_is])
            on_train[test_is] = model.predict_proba(train.to_numpy()[test_is])
            on_test += model.predict_proba(test.to_numpy())
        classes = np.unique(challenge.y_train)
        scores.append(
            (
                float(np.mean(classes[on_train.argmax(axis=1)] == challenge.y_train)),
                float(np.mean(classes[on_test.argmax(axis=1)] == challenge.y_test)),
            )
        )
    return scores


def test_the_leaderboard_is_that_of_a_plain_script_also_when_it_is_run_again(
    daemon: RunningDaemon, databoard: ModuleType, tmp_path: Path
) -> None:
    challenge = databoard.challenge_of(iris())
    submissions = databoard.make_submissions(3, 1, challenge, tmp_path)
    expected = plain_scores(databoard, [file for submission in submissions for file in submission.files])

    for _ in range(2):
        done = run_example(daemon.spool.root, "--submissions", "3", "--json")

        assert 0 == done.returncode, done.stderr
        rows = json.loads(done.stdout)
        assert expected == [(row["validation_accuracy"], row["test_accuracy"]) for row in rows]
        assert [(1, 5, []), (2, 5, []), (3, 5, [])] == [(row["id"], row["tested"], row["errors"]) for row in rows]
        assert 3 == len({row["model"] for row in rows})
    assert 1 == len(daemon.catalog("DatasetAccepted"))
    assert 30 == len(daemon.catalog("FoldStarted"))


def test_the_table_names_every_submission(daemon: RunningDaemon) -> None:
    done = run_example(daemon.spool.root, "--submissions", "1")

    assert 0 == done.returncode, done.stderr
    assert "Leaderboard" in done.stdout
    assert "RandomForest" in done.stdout


def test_errors_are_sorted_by_their_tag_and_folds_are_todo_until_all_are_done(
    daemon: RunningDaemon, databoard: ModuleType, tmp_path: Path
) -> None:
    service = databoard.Service(str(daemon.spool.root), getpass.getuser())
    table = iris()
    challenge = databoard.challenge_of(table)
    table.to_csv(tmp_path / "data.csv", index=False)
    data_id = databoard.send_data(service, "iris", tmp_path / "data.csv")
    submissions = []
    for number, code in enumerate(("nonsense!", "import no_such_module", TOO_SHORT), 1):
        file = tmp_path / str(number) / "classifier.py"
        file.parent.mkdir()
        file.write_text(code)
        submissions.append(databoard.make_submission(number, "", [file], challenge))
        databoard.send_submission(service, submissions[-1], data_id)

    for submission in submissions:
        wait_for(
            lambda submission=submission: databoard.get_predictions(service, submission, challenge),  # type: ignore[misc]
            f"submission {submission.id}",
        )

    rows = [databoard.score(submission, challenge) for submission in submissions]
    assert [["training error"], ["training error"], ["validating error"]] == [row["errors"] for row in rows]
    assert [0, 0, 0] == [row["tested"] for row in rows]


def test_a_dataset_of_that_name_that_is_split_otherwise_is_told(daemon: RunningDaemon, tmp_path: Path) -> None:
    iris().to_csv(tmp_path / "data.csv", index=False)
    Spool(daemon.spool.root).add_dataset(
        "databoard_iris",
        target_column="species",
        workflow_elements="classifier",
        data_file=tmp_path / "data.csv",
        split={"held_out_test": 0.2},
    )

    done = run_example(daemon.spool.root)

    assert 1 == done.returncode
    assert "the data cannot be split: Bad Request" in done.stderr


def test_without_a_spool_one_line_says_so(tmp_path: Path) -> None:
    done = run_example(tmp_path)

    assert 1 == done.returncode
    assert done.stderr.startswith("error: ")
    assert str(tmp_path) in done.stderr
