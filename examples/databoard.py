"""A small challenge server: sends data and submissions to a spool, polls for predictions, scores them.

    python examples/databoard.py SPOOL [--submissions K]

SPOOL is a spool's path, or ssh://USER@HOST:PORT/PATH, on which a daemon runs. It does what databoard, the
server of the RAMP challenges, did with datarun's REST service, by the same functions; only the address
has changed. Run it again: the data set is there already, and the submissions are forced to run once more.
"""

from __future__ import annotations

import argparse
import base64
import getpass
import json
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_iris
from sklearn.model_selection import StratifiedKFold, train_test_split

from datarun_daemon.client import post_api
from datarun_daemon.core.errors import DatarunError

TARGET = "species"
HELD_OUT_TEST = 0.4
RANDOM_STATE = 42
N_FOLDS = 5

#: scikit-learn's module, class and arguments; {n} grows from one round to the next
MODELS = (
    ("ensemble", "RandomForestClassifier", "n_estimators={n}0, random_state=0"),
    ("linear_model", "LogisticRegression", "C={n}, max_iter=1000"),
    ("neighbors", "KNeighborsClassifier", "n_neighbors={n}"),
    ("tree", "DecisionTreeClassifier", "max_depth={n}, random_state=0"),
    ("naive_bayes", "GaussianNB", "var_smoothing={n}e-9"),
)
CLASSIFIER = """\
from sklearn.{module} import {name}


class Classifier({name}):
    def __init__(self):
        super().__init__({arguments})
"""
#: of an error, by what its log holds first
ERRORS = {
    "ERROR(split": "checking error",
    "ERROR(train": "training error",
    "ERROR(validation": "validating error",
    "ERROR(test": "testing error",
}


@dataclass(frozen=True)
class Service:
    """What every call begins with."""

    host_url: str
    username: str
    password: str = ""

    @property
    def login(self) -> tuple[str, str, str]:
        return self.host_url, self.username, self.password


@dataclass(frozen=True)
class Fold:
    id: int
    train_is: Any
    test_is: Any


@dataclass(frozen=True)
class Challenge:
    """The truth, which stays here, and the CV folds. Rows are split as the service does it."""

    y_train: Any
    y_test: Any
    cv: Sequence[tuple[Any, Any]]

    @property
    def classes(self) -> list[str]:
        return sorted(set(self.y_train))


@dataclass
class Submission:
    id: int
    model: str
    files: list[Path]
    folds: list[Fold]
    #: by fold
    states: dict[int, str] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)
    full_train: dict[int, Any] = field(default_factory=dict)
    test: dict[int, Any] = field(default_factory=dict)
    train_seconds: dict[int, float] = field(default_factory=dict)


def main() -> int:
    options = parsed()
    service = Service(options.spool, getpass.getuser())
    frame = load_iris(as_frame=True)
    table = frame.data.assign(**{TARGET: frame.target_names[frame.target]})
    challenge = challenge_of(table)
    console = Console()
    with tempfile.TemporaryDirectory(prefix="databoard-") as folder:
        csv_file = Path(folder, "data.csv")
        table.to_csv(csv_file, index=False)
        data_id = send_data(service, options.data_name, csv_file)
        if data_id is None:
            return 1
        submissions = list(make_submissions(options.submissions, options.first_id, challenge, Path(folder)))
        for submission in submissions:
            send_submission(service, submission, data_id)
        with console.status("waiting for predictions") as status:
            waiting = list(submissions)
            while waiting:
                waiting = [each for each in waiting if not get_predictions(service, each, challenge)]
                status.update(f"{len(submissions) - len(waiting)} of {len(submissions)} submissions are through")
                if waiting:
                    time.sleep(options.poll_seconds)
    rows = [score(submission, challenge) for submission in submissions]
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        console.print(leaderboard(rows))
    return 0 if all(row["tested"] == N_FOLDS for row in rows) else 1


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("spool", metavar="SPOOL", help="path, or ssh://USER@HOST:PORT/PATH")
    parser.add_argument("--submissions", type=int, default=5, metavar="K", help="how many (5)")
    parser.add_argument("--poll-seconds", type=float, default=2.0, help="between two looks (2)")
    parser.add_argument("--data-name", default="databoard_iris", help="of the dataset (databoard_iris)")
    parser.add_argument("--first-id", type=int, default=1, help="of the submissions (1)")
    parser.add_argument("--json", action="store_true", help="print the scores as JSON")
    return parser.parse_args()


def challenge_of(table: pd.DataFrame) -> Challenge:
    train, test = train_test_split(table, test_size=HELD_OUT_TEST, random_state=RANDOM_STATE)
    y_train = train[TARGET].to_numpy(dtype=object)
    cv = StratifiedKFold(N_FOLDS, shuffle=True, random_state=57)
    return Challenge(y_train, test[TARGET].to_numpy(dtype=object), list(cv.split(np.zeros(len(y_train)), y_train)))


def make_submissions(number: int, first_id: int, challenge: Challenge, folder: Path) -> Iterator[Submission]:
    for index in range(number):
        module, name, arguments = MODELS[index % len(MODELS)]
        arguments = arguments.format(n=1 + index // len(MODELS))
        file = folder / str(first_id + index) / "classifier.py"
        file.parent.mkdir()
        file.write_text(CLASSIFIER.format(module=module, name=name, arguments=arguments))
        yield make_submission(first_id + index, f"{name}({arguments})", [file], challenge)


def make_submission(submission_id: int, model: str, files: list[Path], challenge: Challenge) -> Submission:
    folds = [
        Fold(1000 * submission_id + number, train_is, test_is)
        for number, (train_is, test_is) in enumerate(challenge.cv)
    ]
    return Submission(submission_id, model, files, folds)


def send_data(service: Service, data_name: str, csv_file: Path) -> int | None:
    """The number of the dataset, which is being split; None: it cannot be used, as was printed."""
    sent = post_api.post_data(*service.login, data_name, TARGET, "classifier", str(csv_file))
    if sent.ok:
        data_id = sent.json()["id"]
    elif "RawData with this name already exists" in sent.text:
        there = post_api.get_raw_data(*service.login).json()
        (data_id,) = (row["id"] for row in there if row["name"] == data_name)
    else:
        print(f"the data was not taken: {sent.reason}: {sent.text}", file=sys.stderr)
        return None
    split = post_api.post_split(*service.login, HELD_OUT_TEST, data_id, random_state=RANDOM_STATE)
    if not split.ok:
        print(f"the data cannot be split: {split.reason}: {split.text}", file=sys.stderr)
        return None
    return int(data_id)


def send_submission(service: Service, submission: Submission, data_id: int) -> None:
    """Its folds run, whether they ran before or not; those that were not taken are in ``errors``."""
    first: dict[str, Any] = {
        "raw_data_id": data_id,
        "list_submission_files": [str(file) for file in submission.files],
        "force": "submission, submission_fold",
    }
    for fold in submission.folds:
        sent = post_api.post_submission_fold(
            *service.login, submission.id, fold.id, fold.train_is, fold.test_is, "L",
            **(first or {"force": "submission_fold"}),
        )  # fmt: skip
        first = {}
        if sent.ok:
            submission.states[fold.id] = "TODO"
        else:
            submission.states[fold.id] = "ERROR"
            submission.errors[fold.id] = f"not taken: {sent.reason}: {sent.text}"


def get_predictions(service: Service, submission: Submission, challenge: Challenge) -> bool:
    """Whether no fold of the submission is left to do; what there is of their predictions is in it then."""
    sent = [fold for fold, state in submission.states.items() if state == "TODO"]
    answers = post_api.get_prediction_list(*service.login, sent).json()
    if any(answer["state"] == "TODO" for answer in answers):
        return False
    for answer in answers:
        fold = answer["databoard_sf_id"]
        submission.states[fold] = answer["state"]
        submission.train_seconds[fold] = answer["train_time"]
        if answer["state"] == "TESTED":
            submission.full_train[fold] = probabilities(answer["full_train_predictions"], len(challenge.y_train))
            submission.test[fold] = probabilities(answer["test_predictions"], len(challenge.y_test))
        else:
            log = answer["log_messages"]
            submission.errors[fold] = next((error for tag, error in ERRORS.items() if tag in log), "error")
    return True


def probabilities(sent: str, n_rows: int) -> Any:
    """A row for each sample, a column for each class."""
    return np.frombuffer(zlib.decompress(base64.b64decode(sent)), dtype=float).reshape(n_rows, -1)


def score(submission: Submission, challenge: Challenge) -> dict[str, Any]:
    """Accuracies of the bagged predictions: each row's mean over the folds that may speak about it."""
    row: dict[str, Any] = {
        "id": submission.id,
        "model": submission.model,
        "tested": len(submission.test),
        "errors": sorted(set(submission.errors.values())),
        "validation_accuracy": None,
        "test_accuracy": None,
        "mean_train_seconds": None,
    }
    tested = [fold for fold in submission.folds if fold.id in submission.test]
    if tested:
        n_columns = submission.test[tested[0].id].shape[1]
        total = np.zeros((len(challenge.y_train), n_columns))
        for fold in tested:
            total[fold.test_is] += submission.full_train[fold.id][fold.test_is]
        seen = np.unique(np.concatenate([fold.test_is for fold in tested]))
        row["validation_accuracy"] = accuracy(total[seen], challenge.y_train[seen], challenge.classes)
        bagged = np.mean([submission.test[fold.id] for fold in tested], axis=0)
        row["test_accuracy"] = accuracy(bagged, challenge.y_test, challenge.classes)
        row["mean_train_seconds"] = float(np.mean([submission.train_seconds[fold.id] for fold in tested]))
    return row


def accuracy(predicted: Any, truth: Any, classes: Sequence[str]) -> float:
    return float(np.mean(np.array(classes, dtype=object)[predicted.argmax(axis=1)] == truth))


def leaderboard(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="Leaderboard", caption=f"accuracy of the predictions of {N_FOLDS} folds, bagged")
    table.add_column("", justify="right")
    table.add_column("submission")
    for name in ("folds", "validation", "test", "train s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("errors")
    for row in sorted(rows, key=lambda row: -(row["test_accuracy"] or 0.0)):
        numbers = (row[name] for name in ("validation_accuracy", "test_accuracy", "mean_train_seconds"))
        shown = ("-" if number is None else f"{number:.3f}" for number in numbers)
        table.add_row(str(row["id"]), row["model"], str(row["tested"]), *shown, "; ".join(row["errors"]))
    return table


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DatarunError as error:
        # no spool, no way to it, no daemon
        sys.exit(f"error: {error}")
