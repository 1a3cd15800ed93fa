"""What the REST service answered to each call, and what the same function answers on a spool."""

from __future__ import annotations

import base64
import getpass
import zlib
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_iris

from datarun_daemon.client import post_api
from datarun_daemon.client.response import Response
from tests.bundles import FOREST, slow
from tests.daemon_process import wait_for

BROKEN = FOREST.replace("self.forest.fit(X, y)", 'raise ValueError("no idea")')
SPECIFIC = """\
import pandas as pd


def prepare_data(path):
    rows = pd.read_csv(path + "/rows.csv")
    rows[:100].to_csv(path + "/train.csv", index=False)
    rows[100:].to_csv(path + "/test.csv", index=False)


def get_train_data(path):
    rows = pd.read_csv(path + "/train.csv")
    return rows.drop(columns="species"), rows["species"]


def get_test_data(path):
    rows = pd.read_csv(path + "/test.csv")
    return rows.drop(columns="species"), rows["species"]
"""
TRAIN, VALIDATION = np.arange(60), np.arange(60, 75)
BOTH = "submission, submission_fold"


@dataclass(frozen=True)
class Client:
    """Calls the functions with what every call begins with; ``name`` is "path" or "ssh"."""

    name: str
    url: str
    files: Path
    #: of the dataset that is split, and of one that is not
    iris: int = 0
    unsplit: int = 0

    def __call__(self, function: str, *arguments: Any, **more: Any) -> Response:
        called = getattr(post_api, function)(self.url, getpass.getuser(), "a password", *arguments, **more)
        assert isinstance(called, Response)
        return called

    def path(self, name: str) -> str:
        return str(self.files / name)

    def dataset(self, name: str) -> str:
        return f"{name}_{self.name}"

    def id(self, number: int) -> int:
        """Of a submission or fold: the same call through another transport has another."""
        return number + {"path": 1000, "ssh": 2000}[self.name]

    def fold(self, submission: int, fold: int, *files: str, **more: Any) -> Response:
        """Sends a fold, with the files for the first one of a submission."""
        if files:
            more = {"raw_data_id": self.iris, "list_submission_files": [self.path(name) for name in files], **more}
        rows = more.pop("rows", (TRAIN, VALIDATION))
        return self("post_submission_fold", self.id(submission), self.id(fold), *rows, **more)

    def wait(self, *folds: int) -> None:
        """Until these have ended; only the light list is looked at, so nothing is delivered."""
        self.wait_for_ids({self.id(fold) for fold in folds})

    def wait_for_ids(self, ids: Set[int]) -> None:
        def ended() -> bool:
            rows = {row["databoard_sf_id"]: row["state"] for row in self("get_submission_fold_light").json()}
            return all(rows.get(fold, "TODO") != "TODO" for fold in ids)

        wait_for(ended, f"folds {ids}")


def write_files(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    frame = load_iris(as_frame=True)
    table = frame.data.assign(species=frame.target_names[frame.target])
    for name in ("anything.txt", "rows.csv"):
        table.to_csv(folder / name, index=False)
    for name, text in (("specific.py", SPECIFIC), ("classifier.py", FOREST), ("a\\b.py", "")):
        (folder / name).write_text(text)
    for name, text in (("broken", BROKEN), ("slow", slow(600))):
        (folder / name).mkdir()
        (folder / name / "classifier.py").write_text(text)


def send_iris(client: Client) -> int:
    """The number of the dataset, which is being split."""
    sent = client("post_data", client.dataset("iris"), "species", "classifier", client.path("anything.txt"))
    assert sent.ok, sent.text
    assert client("post_split", 0.5, sent.json()["id"]).ok
    return int(sent.json()["id"])


class Answer(NamedTuple):
    status: int
    reason: str
    #: what the JSON holds: types, literal values, keys; ``messages`` stands for one or more texts
    shape: object


def messages(value: object) -> bool:
    return isinstance(value, list) and value != [] and all(isinstance(each, str) and each for each in value)


def fits(value: object, shape: object) -> bool:
    if isinstance(shape, type):
        return type(value) is shape
    if isinstance(shape, tuple):
        return any(fits(value, each) for each in shape)
    if isinstance(shape, Mapping):
        return isinstance(value, dict) and value.keys() == shape.keys() and all(
            fits(value[key], each) for key, each in shape.items()
        )  # fmt: skip
    if isinstance(shape, list):
        return isinstance(value, list) and len(value) == len(shape) and all(map(fits, value, shape))
    return bool(shape(value)) if callable(shape) else value == shape


def floats(n_rows: int) -> Callable[[object], bool]:
    """base64(zlib(float64)) of so many rows and three classes."""
    return lambda value: isinstance(value, str) and unpacked(value).shape == (n_rows, 3)


def unpacked(text: str) -> Any:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=float).reshape(-1, 3)


def row_numbers(text: str) -> list[int]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=np.int64).tolist()  # type: ignore[no-any-return]


NULL, BLANK = ["This field may not be null."], ["This field may not be blank."]
SERVER_ERROR = Answer(500, "Internal Server Error", None)
NOT_FOUND = Answer(404, "Not Found", {"detail": "Not found."})
TASK = Answer(200, "OK", {"task_id": str})
RAW_DATA = {"id": int, "name": str, "files_path": str, "workflow_elements": str, "target_column": str}
#: no path, since nobody but the daemon reads there; and how the split is
OUR_RAW_DATA = RAW_DATA | {"files_path": None, "state": str, "reason": (None, str)}
MEASURED = dict.fromkeys(("train_time", "validation_time", "test_time", "train_cpu_time", "test_cpu_time"), float)
MEASURED |= dict.fromkeys(("train_memory", "test_memory"), float)
FOLD = {
    "databoard_sf_id": int, "databoard_s": int, "train_is": str, "test_is": str, "priority": str,
    "full_train_predictions": None, "test_predictions": None, "state": "TODO", "log_messages": None, **MEASURED,
    "new": True, "task_id": str,
}  # fmt: skip
TESTED = {"full_train_predictions": floats(75), "test_predictions": floats(75), "state": "TESTED", "log_messages": str}
FAILED = {"state": "ERROR", "log_messages": lambda text: "ERROR(train)" in text and "no idea" in text}
PREDICTION = {
    name: shape for name, shape in FOLD.items() if name not in ("train_is", "test_is", "priority", "new", "task_id")
}
LIGHT = {"databoard_sf_id": int, "databoard_s": int, "state": str, "new": bool}


class Case(NamedTuple):
    call: Callable[[Client], Response]
    #: of the REST service
    rest: Answer
    #: None: the same
    ours: Answer | None = None


def bad(**fields: object) -> Answer:
    return Answer(400, "Bad Request", fields)


CASES = {
    "post_data": Case(
        lambda c: c("post_data", c.dataset("good"), "species", "feature_extractor, classifier", c.path("rows.csv")),
        Answer(201, "Created", RAW_DATA | {"workflow_elements": "feature_extractor, classifier"}),
        Answer(201, "Created", OUR_RAW_DATA | {"workflow_elements": "feature_extractor, classifier"}),
    ),
    "post_data: the name exists": Case(
        lambda c: c("post_data", c.dataset("iris"), "species", "classifier", c.path("rows.csv")),
        bad(name=["RawData with this name already exists."]),
    ),
    "post_data: with code of its own": Case(
        lambda c: c(
            "post_data", c.dataset("custom"), "specific", "classifier", c.path("rows.csv"), [c.path("specific.py")]
        ),
        Answer(201, "Created", RAW_DATA),
        Answer(201, "Created", OUR_RAW_DATA),
    ),
    "post_data: several files, none of them Python": Case(
        lambda c: c("post_data", c.dataset("two"), "x", "classifier", c.path("rows.csv"), [c.path("anything.txt")]),
        Answer(406, "Not Acceptable", {"error": "Submit a specific.py when submitting several files"}),
    ),
    "post_data: nothing in fields": Case(
        lambda c: c("post_data", None, "", None, c.path("rows.csv")),
        bad(name=NULL, target_column=BLANK, workflow_elements=NULL),
    ),
    "post_data: a path as name": Case(
        lambda c: c("post_data", "../up", "species", "classifier", c.path("rows.csv")),
        Answer(201, "Created", RAW_DATA),
        bad(name=messages),
    ),
    "post_data: elements that are none": Case(
        lambda c: c("post_data", c.dataset("odd"), "species", "clasifier", c.path("rows.csv")),
        Answer(201, "Created", RAW_DATA),
        bad(workflow_elements=messages),
    ),
    "post_split": Case(lambda c: c("post_split", 0.2, split_later(c, "later")), TASK),
    "post_split: just so already": Case(lambda c: c("post_split", 0.5, c.iris, random_state=42), TASK),
    "post_split: otherwise than before": Case(
        lambda c: c("post_split", 0.2, c.iris), TASK, bad(held_out_test=messages)
    ),
    "post_split: no such dataset": Case(lambda c: c("post_split", 0.2, 9999), SERVER_ERROR, NOT_FOUND),
    "post_split: no share": Case(lambda c: c("post_split", 70, c.unsplit), TASK, bad(held_out_test=messages)),
    "post_split: nothing in fields": Case(
        lambda c: c("post_split", None, None), SERVER_ERROR, bad(held_out_test=NULL, raw_data_id=NULL)
    ),
    "custom_post_split": Case(
        lambda c: c("custom_post_split", split_later(c, "own", [c.path("specific.py")])), TASK
    ),
    "custom_post_split: no such dataset": Case(lambda c: c("custom_post_split", 9999), SERVER_ERROR, NOT_FOUND),
    "custom_post_split: a dataset without code": Case(
        lambda c: c("custom_post_split", c.unsplit), TASK, bad(raw_data_id=messages)
    ),
    "post_submission_fold": Case(
        lambda c: c.fold(31, 101, "classifier.py", priority="H", force=BOTH),
        Answer(201, "Created", FOLD | {"priority": "H"}),
    ),
    "post_submission_fold: of a submission that is there": Case(
        lambda c: c.fold(24, 102, force="submission_fold"), Answer(201, "Created", FOLD | {"priority": "L"})
    ),
    "post_submission_fold: low": Case(
        lambda c: c.fold(24, 103, priority="low"),
        Answer(201, "Created", FOLD | {"priority": "low"}),
        Answer(201, "Created", FOLD | {"priority": "L"}),
    ),
    "post_submission_fold: it exists": Case(
        lambda c: c.fold(24, 11),
        bad(databoard_sf_id=["SubmissionFold with this databoard sf id already exists."]),
        bad(databoard_sf_id=["SubmissionFold with this databoard sf id already exists.", str]),
    ),
    "post_submission_fold: nothing in fields": Case(
        lambda c: c("post_submission_fold", None, None, None, None),
        bad(databoard_sf_id=NULL, train_is=NULL, test_is=NULL),
        bad(databoard_sf_id=NULL, databoard_s=NULL, train_is=NULL, test_is=NULL),
    ),
    "post_submission_fold: bad base64": Case(
        lambda c: c.fold(24, 104, rows=("not base64", b"eJxjYIAAAAAIAAE=")),
        Answer(201, "Created", FOLD),
        bad(train_is=messages),
    ),
    "post_submission_fold: no row numbers": Case(
        lambda c: c.fold(24, 104, rows=([0.5, 1.5], TRAIN > 7)),
        Answer(201, "Created", FOLD),
        bad(train_is=messages, test_is=messages),
    ),
    "post_submission_fold: rows that are not there": Case(
        lambda c: c.fold(24, 104, rows=([0, 1, 75], [2])), Answer(201, "Created", FOLD), bad(train_is=messages)
    ),
    "post_submission_fold: no such dataset": Case(
        lambda c: c.fold(32, 104, "classifier.py", raw_data_id=9999),
        bad(databoard_s=messages),
        bad(raw_data=['Invalid pk "9999" - object does not exist.']),
    ),
    "post_submission_fold: a path in a file's name": Case(
        lambda c: c.fold(32, 104, "classifier.py", "a\\b.py"), Answer(201, "Created", FOLD), bad(files=messages)
    ),
    "post_submission_fold: of a submission that is not there": Case(
        lambda c: c.fold(33, 105), SERVER_ERROR, Answer(201, "Created", FOLD)
    ),
    "post_submission_fold: elements without files": Case(
        lambda c: c.fold(32, 104, "specific.py"), Answer(201, "Created", FOLD), bad(files=messages)
    ),
    "post_submission_fold: other files without force": Case(
        lambda c: c.fold(24, 104, "broken/classifier.py"), Answer(201, "Created", FOLD), bad(files=messages)
    ),
    "post_submission_fold: no such priority": Case(
        lambda c: c.fold(24, 104, priority="M"), bad(priority=['"M" is not a valid choice.'])
    ),
    "post_submission_fold: no such force": Case(
        lambda c: c.fold(24, 104, force="everything"),
        Answer(201, "Created", FOLD),
        bad(force=['"everything" is not a valid choice.']),
    ),
    "get_prediction_list": Case(
        lambda c: c("get_prediction_list", [c.id(11), c.id(12), 9999, c.id(13), c.id(11), "../up"]),
        Answer(200, "OK", [PREDICTION | TESTED, PREDICTION | FAILED, PREDICTION]),
    ),
    "get_prediction_list: as an array": Case(
        lambda c: c("get_prediction_list", np.array([c.id(13)])), SERVER_ERROR, Answer(200, "OK", [PREDICTION])
    ),
    "get_prediction_list: of nothing": Case(lambda c: c("get_prediction_list", []), Answer(200, "OK", [])),
    "get_prediction_list: no list": Case(
        lambda c: c("get_prediction_list", c.id(11)),
        Answer(204, "No Content", None),
        bad(list_submission_fold=messages),
    ),
    "get_prediction_new: of nothing": Case(lambda c: c("get_prediction_new", c.unsplit), Answer(200, "OK", [])),
    "get_prediction_new: no such dataset": Case(lambda c: c("get_prediction_new", 9999), Answer(200, "OK", [])),
    "get_raw_data": Case(
        lambda c: only(c("get_raw_data"), "id", c.iris),
        Answer(200, "OK", [RAW_DATA]),
        Answer(200, "OK", [OUR_RAW_DATA | {"state": "SPLIT", "target_column": "species"}]),
    ),
    "get_submission_fold": Case(
        lambda c: only(c("get_submission_fold"), "databoard_sf_id", c.id(11), c.id(12), c.id(13)),
        Answer(200, "OK", [FOLD | TESTED | {"new": bool}, FOLD | FAILED | {"new": bool}, FOLD]),
    ),
    "get_submission_fold_light": Case(
        lambda c: only(c("get_submission_fold_light"), "databoard_sf_id", c.id(13)),
        Answer(200, "OK", [LIGHT | {"state": "TODO", "new": True}]),
    ),
    "get_submission_fold_detail": Case(
        lambda c: c("get_submission_fold_detail", c.id(11)), Answer(200, "OK", FOLD | TESTED | {"new": bool})
    ),
    "get_submission_fold_detail: it waits": Case(
        lambda c: c("get_submission_fold_detail", c.id(13)), Answer(200, "OK", FOLD)
    ),
    "get_submission_fold_detail: no such fold": Case(lambda c: c("get_submission_fold_detail", 9999), NOT_FOUND),
    "get_submission_fold_detail: no id": Case(lambda c: c("get_submission_fold_detail", "../up"), NOT_FOUND),
}


def split_later(c: Client, name: str, extra_files: list[str] | None = None) -> int:
    sent = c("post_data", c.dataset(name), "species", "classifier", c.path("rows.csv"), extra_files)
    return int(sent.json()["id"])


def only(response: Response, field: str, *values: int) -> Response:
    """Of the rows those with these values, since others come and go."""
    rows = [row for row in response.json() if row[field] in values]
    return Response.of(HTTPStatus(response.status_code), rows)
