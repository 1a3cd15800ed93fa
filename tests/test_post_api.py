"""The functions of the REST service's client, on a spool: what the service answered, and what is answered now."""

from __future__ import annotations

import base64
import getpass
import inspect
import os
import pwd
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

from datarun_daemon.client import NoAnswer, Spool, Unreachable, post_api
from datarun_daemon.client.response import Response
from datarun_daemon.core.errors import SpoolError
from datarun_daemon.spool import layout
from tests.bundles import FOREST, slow
from tests.conftest import StartDaemon
from tests.daemon_process import RunningDaemon, wait_for
from tests.sshd import program, running_sshd

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
Own = Callable[..., tuple[RunningDaemon, "Client"]]


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
        ids = {self.id(fold) for fold in folds}

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


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    daemon = RunningDaemon(tmp_path_factory.mktemp("served"))
    try:
        yield daemon.start()
    finally:
        daemon.end()


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], str]]:
    """From a path here to its ssh:// URL; ``ssh`` is the real one with a configuration of ours."""
    with running_sshd(tmp_path_factory.mktemp("ssh") / "sshd") as sshd, pytest.MonkeyPatch.context() as patch:
        folder = sshd.folder / "bin"
        folder.mkdir()
        wrapper = folder / "ssh"
        options = " ".join(f"'{option}'" for option in sshd.options)
        wrapper.write_text(f'#!/bin/sh\nexec {program("ssh")} {options} "$@"\n')
        wrapper.chmod(0o755)
        patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        yield sshd.url


@pytest.fixture(scope="module", params=["path", "ssh"])
def client(request: pytest.FixtureRequest, served: RunningDaemon, tmp_path_factory: pytest.TempPathFactory) -> Client:
    """A dataset that is split and one that is not; a fold that is TESTED, one that is an ERROR, one that waits."""
    root = served.spool.root
    url = str(root) if request.param == "path" else request.getfixturevalue("ssh")(root)
    files = tmp_path_factory.mktemp("files")
    write_files(files)
    client = Client(request.param, url, files)
    unsplit = client("post_data", client.dataset("unsplit"), "species", "classifier", client.path("rows.csv"))
    client = Client(request.param, url, files, send_iris(client), unsplit.json()["id"])
    assert client.fold(24, 11, "classifier.py").ok
    assert client.fold(25, 12, "broken/classifier.py").ok
    assert client.fold(26, 13, "classifier.py", raw_data_id=client.unsplit).ok
    client.wait(11, 12)
    return client


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
        lambda c: first(c("get_raw_data"), id=c.iris),
        Answer(200, "OK", [RAW_DATA]),
        Answer(200, "OK", [OUR_RAW_DATA | {"state": "SPLIT", "target_column": "species"}]),
    ),
    "get_submission_fold": Case(
        lambda c: first(c("get_submission_fold"), databoard_sf_id=c.id(11)),
        Answer(200, "OK", [FOLD | TESTED | {"new": bool}]),
    ),
    "get_submission_fold: an error": Case(
        lambda c: first(c("get_submission_fold"), databoard_sf_id=c.id(12)),
        Answer(200, "OK", [FOLD | FAILED | {"new": bool}]),
    ),
    "get_submission_fold_light": Case(
        lambda c: first(c("get_submission_fold_light"), databoard_sf_id=c.id(13)),
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


def first(response: Response, **fields: object) -> Response:
    """Of the rows only those with these values, since others come and go."""
    rows = [row for row in response.json() if fields.items() <= row.items()]
    return Response.of(HTTPStatus(response.status_code), rows)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_answers_as_the_service_did_or_better(case: Case, client: Client) -> None:
    expected = case.ours or case.rest

    response = case.call(client)

    assert (expected.status, expected.reason) == (response.status_code, response.reason), response.text
    assert fits(response.json(), expected.shape), response.text
    assert response.ok is bool(response) is (expected.status < 400)
    assert response.text.encode() == response.content


def test_positions_and_defaults_are_those_of_the_service() -> None:
    login = "host_url, username, password"
    expected = {
        "post_data": f"{login}, data_name, target_column, workflow_elements, data_file, extra_files=None",
        "post_split": f"{login}, held_out_test, raw_data_id, random_state=42",
        "custom_post_split": f"{login}, raw_data_id",
        "post_submission_fold": f"{login}, sub_id, sub_fold_id, train_is, test_is, priority='L', raw_data_id=None, "
        "list_submission_files=None, force=None",
        "get_prediction_list": f"{login}, list_submission_fold_id",
        "get_prediction_new": f"{login}, raw_data_id",
        "get_raw_data": login,
        "get_submission_fold": login,
        "get_submission_fold_light": login,
        "get_submission_fold_detail": f"{login}, submission_fold_id",
    }

    for name, signature in expected.items():
        parameters = inspect.signature(getattr(post_api, name)).parameters.values()
        assert signature == ", ".join(str(p.replace(annotation=p.empty)) for p in parameters), name


def test_predictions_and_row_numbers_are_those_of_a_plain_script(client: Client) -> None:
    (row,) = client("get_prediction_list", [client.id(11)]).json()
    detail = client("get_submission_fold_detail", client.id(11)).json()

    table = pd.read_csv(client.path("rows.csv"))
    train, test = train_test_split(table, test_size=0.5, random_state=42)
    X, y = train.drop(columns="species").to_numpy(), train["species"].to_numpy()
    forest = RandomForestClassifier(n_estimators=10, random_state=0).fit(X[TRAIN], y[TRAIN])
    for answer in (row, detail):
        np.testing.assert_array_equal(forest.predict_proba(X), unpacked(answer["full_train_predictions"]))
        expected = forest.predict_proba(test.drop(columns="species").to_numpy())
        np.testing.assert_array_equal(expected, unpacked(answer["test_predictions"]))
        assert answer["train_time"] > 0 < answer["test_cpu_time"]
        # of one fold, in MB: not bytes, not kilobytes, not the machine's
        assert 0.1 < answer["train_memory"] < 2000
    assert (TRAIN.tolist(), VALIDATION.tolist()) == tuple(row_numbers(detail[part]) for part in ("train_is", "test_is"))


def test_the_task_of_a_fold_is_the_same_until_it_is_forced(client: Client) -> None:
    sent = client.fold(40, 401, "classifier.py").json()["task_id"]
    seen = client("get_submission_fold_detail", client.id(401)).json()["task_id"]
    forced = client.fold(40, 401, force="submission_fold").json()["task_id"]
    seen_then = client("get_submission_fold_detail", client.id(401)).json()["task_id"]
    other = client.fold(40, 402).json()["task_id"]

    assert (sent, forced) == (seen, seen_then)
    assert len({sent, forced, other}) == 3


def test_a_forced_submission_runs_its_new_files(client: Client) -> None:
    client.fold(41, 411, "broken/classifier.py")
    client.wait(411)
    (before,) = client("get_prediction_list", [client.id(411)]).json()

    client.fold(41, 411, "classifier.py", force=BOTH)
    (forced,) = client("get_prediction_list", [client.id(411)]).json()
    client.wait(411)
    (after,) = client("get_prediction_list", [client.id(411)]).json()

    assert ["ERROR", "TESTED"] == [row["state"] for row in (before, after)]
    assert "ERROR" != forced["state"]


def test_row_numbers_as_base64_are_understood(client: Client) -> None:
    text = base64.b64encode(zlib.compress(VALIDATION.astype(np.int64).tobytes()))

    sent = client.fold(24, 421, rows=(TRAIN.tolist(), text))

    assert 201 == sent.status_code
    assert (TRAIN.tolist(), VALIDATION.tolist()) == tuple(row_numbers(sent.json()[p]) for p in ("train_is", "test_is"))


def test_who_is_not_there_is_told_by_an_exception(tmp_path: Path, ssh: Callable[[Path], str]) -> None:
    empty = layout.Spool.create(tmp_path / "spool").root
    for url, error in (
        (str(tmp_path / "nothing"), SpoolError),
        ("http://127.0.0.1:8000/", SpoolError),
        (ssh(tmp_path / "nothing"), SpoolError),
        (f"ssh://127.0.0.1:1{tmp_path}", Unreachable),
        (str(empty), NoAnswer),
    ):
        with pytest.raises(error):
            post_api.get_raw_data(url, "alice", "")


def test_files_that_are_not_there_are_told_as_by_open(client: Client) -> None:
    with pytest.raises(FileNotFoundError):
        client("post_data", client.dataset("none"), "species", "classifier", client.path("none.csv"))
    with pytest.raises(FileNotFoundError):
        client.fold(24, 431, "none.py")


def test_without_a_user_in_the_url_the_account_is_that_of_the_ssh_configuration(
    client: Client, served: RunningDaemon
) -> None:
    if client.name == "path":
        pytest.skip("there is no URL")
    url = client.url.replace(f"{getpass.getuser()}@", "")

    sent = post_api.post_submission_fold(url, getpass.getuser(), "", client.id(24), client.id(441), TRAIN, VALIDATION)

    assert 201 == sent.status_code, sent.text
    assert [os.geteuid()] == [
        line["owner"] for line in served.catalog("FoldsAccepted") if line["folds"][0]["id"] == str(client.id(441))
    ]


@pytest.fixture
def own(make_daemon: StartDaemon, tmp_path: Path) -> Own:
    """Makes a daemon of its own with the dataset split, and its client."""

    def make(**options: Any) -> tuple[RunningDaemon, Client]:
        daemon = make_daemon(**options).start()
        files = tmp_path / "files"
        write_files(files)
        client = Client("path", str(daemon.spool.root), files)
        return daemon, Client("path", client.url, files, send_iris(client))

    return make


def test_each_new_result_is_given_once_over_a_restart(own: Own) -> None:
    daemon, client = own()
    client.fold(24, 11, "classifier.py")
    client.fold(24, 12)
    client.fold(25, 13, "broken/classifier.py")
    client.wait(11, 12, 13)
    assert {client.id(11)} == {row["databoard_sf_id"] for row in client("get_prediction_list", [client.id(11)]).json()}

    daemon.stop()
    daemon.start()
    given = [client("get_prediction_new", dataset).json() for dataset in (9999, client.iris, client.iris, None)]
    daemon.stop()
    daemon.start()
    again = client("get_prediction_new", None).json()

    assert [[], [client.id(12)], [], [], []] == [
        [row["databoard_sf_id"] for row in rows] for rows in (*given, again)
    ]
    wait_for(lambda: {False, True} == {row["new"] for row in client("get_submission_fold_light").json()}, "the views")
    assert {client.id(13)} == {
        row["databoard_sf_id"] for row in client("get_submission_fold_light").json() if row["new"]
    }


def test_asking_for_a_fold_that_is_not_done_does_not_make_it_delivered(own: Own) -> None:
    _, client = own()
    dataset = split_later(client, "later")
    client.fold(24, 11, "classifier.py", raw_data_id=dataset)

    (early,) = client("get_prediction_list", [client.id(11)]).json()
    client("post_split", 0.5, dataset)
    client.wait(11)
    new = client("get_prediction_new", dataset).json()

    assert ("TODO", None) == (early["state"], early["test_predictions"])
    assert [client.id(11)] == [row["databoard_sf_id"] for row in new]


def test_looking_at_folds_leaves_their_results_new(own: Own) -> None:
    daemon, client = own()
    client.fold(24, 11, "classifier.py")
    client.wait(11)

    looked = [client("get_submission_fold_detail", client.id(11)).json(), *client("get_submission_fold").json()]

    assert [True, True] == [row["new"] for row in looked]
    assert daemon.result_folder(client.dataset("iris"), str(client.id(24)), client.id(11)).is_dir()
    assert [client.id(11)] == [row["databoard_sf_id"] for row in client("get_prediction_new", client.iris).json()]


def test_a_fold_in_motion_is_todo_and_a_cancelled_one_is_an_error(own: Own) -> None:
    daemon, client = own()
    client.fold(24, 11, "slow/classifier.py")
    daemon.wait_until_running()
    light = "get_submission_fold_light"
    wait_for(lambda: Spool(client.url).fold(client.id(11))["state"] == "RUNNING", "the view")

    (running,), (seen,) = client("get_prediction_list", [client.id(11)]).json(), client(light).json()
    Spool(client.url).cancel(client.id(11))
    client.wait(11)
    (cancelled,) = client("get_prediction_list", [client.id(11)]).json()

    assert ["TODO", "TODO", "ERROR"] == [row["state"] for row in (running, seen, cancelled)]
    assert "cancel" in cancelled["log_messages"]
    assert "ERROR(" not in cancelled["log_messages"]


def test_only_a_shared_account_speaks_for_others(own: Own) -> None:
    account = pwd.getpwuid(os.geteuid()).pw_name
    _, strict = own()
    refused = post_api.post_submission_fold(
        strict.url, "alice", "", 24, 11, TRAIN, VALIDATION, "L", strict.iris, [strict.path("classifier.py")]
    )

    assert (403, "Forbidden", ["detail"]) == (refused.status_code, refused.reason, list(refused.json()))
    assert "shared_accounts" in refused.json()["detail"]
    assert account in refused.json()["detail"]


def test_work_for_users_of_a_shared_account_is_theirs(make_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = make_daemon(shared_accounts=[os.geteuid()]).start()
    write_files(tmp_path / "files")
    client = Client("path", str(daemon.spool.root), tmp_path / "files")
    iris = send_iris(client)
    files = [client.path("classifier.py")]

    def send(user: str, **more: Any) -> Response:
        return post_api.post_submission_fold(client.url, user, "", 24, 11, TRAIN, VALIDATION, "L", iris, files, **more)

    assert [201, 400, 201] == [
        send(user, force=BOTH).status_code for user in ("alice", "bob", "alice")
    ]
    assert {f"{os.geteuid()}/alice"} == {line["owner"] for line in daemon.catalog("FoldsAccepted")}


def test_importing_needs_no_numpy() -> None:
    program = (
        "import sys, datarun_daemon.client.post_api; print({'numpy', 'pandas', 'sklearn', 'rich'} & sys.modules.keys())"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "set()\n" == done.stdout
