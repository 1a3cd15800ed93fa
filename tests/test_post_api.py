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
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

from datarun_daemon.client import NoAnswer, Spool, Unreachable, post_api
from datarun_daemon.client.response import Response
from datarun_daemon.core.errors import SpoolError
from datarun_daemon.spool import layout
from tests.conftest import StartDaemon
from tests.daemon_process import RunningDaemon, wait_for
from tests.rest_cases import (
    BOTH,
    CASES,
    FOLD,
    TESTED,
    TRAIN,
    VALIDATION,
    Case,
    Client,
    fits,
    row_numbers,
    send_iris,
    split_later,
    unpacked,
    write_files,
)
from tests.sshd import program, running_sshd

Own = Callable[..., tuple[RunningDaemon, "Client"]]


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
    other = client.fold(40, 402, priority="H").json()["task_id"]

    assert (sent, forced) == (seen, seen_then)
    assert "H" == client("get_submission_fold_detail", client.id(402)).json()["priority"]
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


def test_a_single_file_becomes_a_csv_file_of_the_dataset_s_name(client: Client, served: RunningDaemon) -> None:
    files = {line["name"]: line["data_file"] for line in served.catalog("DatasetAccepted")}

    assert client.dataset("iris") + ".csv" == files[client.dataset("iris")]


def test_a_name_that_exists_is_in_the_list_that_is_asked_for_next(make_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = make_daemon(status_seconds=2).start()
    write_files(tmp_path / "files")
    client = Client("path", str(daemon.spool.root), tmp_path / "files")
    send_iris(client)
    client("get_raw_data")
    Spool(client.url).add_dataset(
        "other", target_column="species", workflow_elements="classifier", data_file=client.path("rows.csv")
    )

    again = client("post_data", "other", "species", "classifier", client.path("rows.csv"))
    names = [row["name"] for row in client("get_raw_data").json()]

    assert 400 == again.status_code
    assert [client.dataset("iris"), "other"] == names


def test_files_that_are_not_there_are_told_as_by_open(client: Client) -> None:
    with pytest.raises(FileNotFoundError):
        client("post_data", client.dataset("none"), "species", "classifier", client.path("none.csv"))
    with pytest.raises(FileNotFoundError):
        client.fold(24, 431, "none.py")


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


def test_a_program_that_looks_at_an_old_list_is_not_given_a_result_again(own: Own) -> None:
    _, client = own(status_seconds=2)
    client.fold(24, 11, "classifier.py")
    client.wait(11)
    another = replace(client, url=f"{client.url}/.")

    given = [asker("get_prediction_new", asker.iris).json() for asker in (client, another)]

    assert [[client.id(11)], []] == [[row["databoard_sf_id"] for row in rows] for rows in given]


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
    assert all(fits(row, FOLD | TESTED) for row in looked)
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


def test_only_a_shared_account_speaks_for_others(own: Own) -> None:
    account = pwd.getpwuid(os.geteuid()).pw_name
    _, strict = own()
    refused = post_api.post_submission_fold(
        strict.url, "alice", "", 24, 11, TRAIN, VALIDATION, "L", strict.iris, [strict.path("classifier.py")]
    )

    assert (403, "Forbidden", ["detail"]) == (refused.status_code, refused.reason, list(refused.json()))
    assert "shared_accounts" in refused.json()["detail"]
    assert account in refused.json()["detail"]


def test_work_for_users_of_a_shared_account_is_theirs(own: Own) -> None:
    daemon, client = own(shared_accounts=[os.geteuid()])
    files = [client.path("classifier.py")]

    def send(user: str, **more: Any) -> Response:
        return post_api.post_submission_fold(
            client.url, user, "", 24, 11, TRAIN, VALIDATION, "L", client.iris, files, **more
        )

    assert [201, 400, 201] == [send(user, force=BOTH).status_code for user in ("alice", "bob", "alice")]
    assert {f"{os.geteuid()}/alice"} == {line["owner"] for line in daemon.catalog("FoldsAccepted")}

    client.wait_for_ids({11})
    seen = [post_api.get_prediction_list(client.url, user, "", [11]).json() for user in ("bob", "alice")]
    details = [post_api.get_submission_fold_detail(client.url, user, "", 11).json() for user in ("bob", "alice")]

    assert [0, 1] == [len(rows) for rows in seen]
    assert [(None, "TESTED"), (seen[1][0]["test_predictions"], "TESTED")] == [
        (row["test_predictions"], row["state"]) for row in details
    ]


def test_work_of_a_shared_account_itself_is_its_own(own: Own, ssh: Callable[[Path], str]) -> None:
    daemon, client = own(shared_accounts=[os.geteuid()])
    account = pwd.getpwuid(os.geteuid()).pw_name
    with_user = ssh(daemon.spool.root)
    urls = client.url, with_user, with_user.replace(f"{getpass.getuser()}@", "")

    sent = [
        post_api.post_submission_fold(
            url, account, "", number, number, TRAIN, VALIDATION, "L", client.iris, [client.path("classifier.py")]
        )
        for number, url in enumerate(urls)
    ]

    assert [201, 201, 201] == [response.status_code for response in sent], [response.text for response in sent]
    assert [os.geteuid()] * 3 == [line["owner"] for line in daemon.catalog("FoldsAccepted")]


def test_importing_needs_no_numpy() -> None:
    program = (
        "import sys, datarun_daemon.client.post_api; print({'numpy', 'pandas', 'sklearn', 'rich'} & sys.modules.keys())"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "set()\n" == done.stdout
