"""Requests, as files dropped beside a running daemon: cancel, priority, rerun, predictions, split again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.bundles import FOREST, fold_bundle, iris_bundle, slow
from tests.conftest import StartDaemon
from tests.daemon_process import RunningDaemon, wait_for


def ask(
    daemon: RunningDaemon,
    tmp_path: Path,
    name: str,
    *,
    status: str = "accepted",
    owner: int | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """The receipt of a request."""
    file = tmp_path / f"{name}.yaml"
    file.write_text(yaml.safe_dump(fields))
    daemon.drop(file, "requests", owner=owner)
    return daemon.wait_for_receipt("requests", name, status=status)


def answer(daemon: RunningDaemon, name: str) -> tuple[Path, dict[str, Any]]:
    """The folder of a predictions request, and its predictions.json."""
    folder = daemon.spool.outbox / "requests" / name
    wait_for(folder.exists, f"{folder}")
    content = json.loads((folder / "predictions.json").read_text())
    return folder, {fold["id"]: fold for fold in content["folds"]} | {"unknown": content["unknown"]}


def history(daemon: RunningDaemon, fold: int) -> Any:
    command = [sys.executable, "-m", "datarun_daemon", "history", str(fold), "--json"]
    command += ["--spool", str(daemon.spool.root)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.fixture
def busy(make_daemon: StartDaemon, tmp_path: Path) -> RunningDaemon:
    """One slot, held by a fold that runs until it is stopped; four others wait."""
    daemon = make_daemon(slots=1).start()
    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    daemon.drop(fold_bundle(tmp_path / "long", [1], submission="long", code=slow(600)), "folds")
    daemon.wait_until_running()
    daemon.drop(fold_bundle(tmp_path / "quick", [2, 3, 4, 5], submission="quick"), "folds")
    daemon.wait_for_receipt("folds", "quick")
    return daemon


def test_cancelled_folds_end_as_cancelled_whether_they_wait_or_run_and_the_others_go_on(
    busy: RunningDaemon, tmp_path: Path
):
    receipt = ask(busy, tmp_path, "stop", action="cancel", folds=[3, 1])

    assert receipt["cancelled"] == [3]
    assert receipt["being_stopped"] == [1]
    running = busy.wait_for_result("iris", "long", 1)
    assert (running["state"], running["message"]) == ("CANCELLED", "cancelled by its owner")
    assert running["attempt"] == 1
    assert busy.wait_for_result("iris", "quick", 3)["state"] == "CANCELLED"
    for fold in (2, 4, 5):
        assert busy.wait_for_result("iris", "quick", fold)["state"] == "TESTED"
    assert [line["fold"] for line in busy.catalog("FoldStarted")].count("3") == 0


def test_all_folds_of_a_submission_are_cancelled_by_its_id(busy: RunningDaemon, tmp_path: Path):
    receipt = ask(busy, tmp_path, "stop", action="cancel", submission="quick")

    assert receipt["cancelled"] == [2, 3, 4, 5]
    assert busy.wait_for_result("iris", "quick", 5)["state"] == "CANCELLED"


def test_a_cancelled_fold_is_stopped_even_if_the_daemon_is_killed_before_it_could(busy: RunningDaemon, tmp_path: Path):
    busy.stop(number=signal.SIGKILL)
    ticket = max(line["bundle"]["ticket"] for line in busy.catalog("FoldsAccepted")) + 1
    bundle = {"kind": "requests", "name": "stop.yaml", "ticket": ticket, "signature": "-"}
    lines = busy.spool.catalog_file.read_text().splitlines()
    line = {
        "v": 1, "seq": len(lines) + 1, "at": json.loads(lines[-1])["at"], "event": "CancelRequested",
        "data": {"bundle": bundle, "owner": os.getuid(), "folds": ["1"]},
    }  # fmt: skip
    with busy.spool.catalog_file.open("a") as catalog:
        catalog.write(json.dumps(line) + "\n")

    busy.start()

    assert busy.wait_for_result("iris", "long", 1)["state"] == "CANCELLED"


def test_a_fold_that_ended_cannot_be_cancelled_any_more(daemon: RunningDaemon, tmp_path: Path):
    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    daemon.drop(fold_bundle(tmp_path / "team", [1], submission=7), "folds")
    daemon.wait_for_result("iris", "7", 1)

    receipt = ask(daemon, tmp_path, "late", action="cancel", folds=[1])

    assert receipt["ended_already"] == [1]
    assert daemon.wait_for_result("iris", "7", 1)["state"] == "TESTED"


def test_a_fold_whose_submission_never_came_can_be_cancelled_and_has_a_result(daemon: RunningDaemon, tmp_path: Path):
    daemon.drop(fold_bundle(tmp_path / "early", [1], submission=7, dataset=None), "folds")
    daemon.wait_for_receipt("folds", "early")

    ask(daemon, tmp_path, "stop", action="cancel", folds=[1])

    result = daemon.wait_for_result("no-dataset", "7", 1)
    assert (result["state"], result["dataset"]) == ("CANCELLED", None)
    ask(daemon, tmp_path, "get", action="predictions", folds=[1])
    _, content = answer(daemon, "get")
    assert content[1]["state"] == "CANCELLED"


def test_a_fold_that_is_to_run_again_and_is_cancelled_first_does_not_show_its_old_result(
    busy: RunningDaemon, tmp_path: Path
):
    ask(busy, tmp_path, "go", action="cancel", folds=[1])
    assert busy.wait_for_result("iris", "quick", 2)["state"] == "TESTED"
    busy.wait_for_result("iris", "quick", 5)
    busy.drop(fold_bundle(tmp_path / "block", [6], submission="block", code=slow(600)), "folds")
    wait_for(lambda: [x for x in busy.catalog("FoldStarted") if x["fold"] == "6"], "the slot to be taken")
    ask(busy, tmp_path, "again", action="rerun", folds=[2])

    ask(busy, tmp_path, "not", action="cancel", folds=[2])

    wait_for(lambda: busy.wait_for_result("iris", "quick", 2)["state"] == "CANCELLED", "the cancelled result")
    assert busy.wait_for_result("iris", "quick", 2)["attempt"] == 2


def test_a_fold_given_priority_h_overtakes_those_before_it(busy: RunningDaemon, tmp_path: Path):
    receipt = ask(busy, tmp_path, "first", action="priority", folds=[5], priority="high")
    ask(busy, tmp_path, "stop", action="cancel", folds=[1])
    busy.wait_for_result("iris", "quick", 4)

    assert receipt["folds"] == [5]
    assert [line["fold"] for line in busy.catalog("FoldStarted")] == ["1", "5", "2", "3", "4"]


def test_a_rerun_fold_has_a_second_attempt_and_one_that_runs_is_stopped_for_it(busy: RunningDaemon, tmp_path: Path):
    ask(busy, tmp_path, "again", action="rerun", folds=[1])
    wait_for(lambda: ("1", 2) in {(x["fold"], x["attempt"]) for x in busy.catalog("FoldStarted")}, "attempt 2")
    assert busy.receipt("requests", "again")["folds"] == [1]  # type: ignore[index]
    ask(busy, tmp_path, "stop", action="cancel", folds=[1])
    assert busy.wait_for_result("iris", "long", 1)["attempt"] == 2
    busy.wait_for_result("iris", "quick", 5)

    ask(busy, tmp_path, "once-more", action="rerun", submission="quick")

    wait_for(lambda: busy.wait_for_result("iris", "quick", 5)["attempt"] == 2, "the second result")


def test_what_is_not_there_is_refused_naming_it(daemon: RunningDaemon, tmp_path: Path):
    for name, fields in {
        "a": {"action": "cancel", "folds": [99]},
        "b": {"action": "priority", "folds": [99], "priority": "H"},
        "c": {"action": "rerun", "submission": "none"},
        "d": {"action": "predictions", "new": True, "dataset": "none"},
        "e": {"action": "custom_split", "dataset": "none"},
    }.items():
        receipt = ask(daemon, tmp_path, name, status="rejected", **fields)
        assert any("99" in p["found"] or "none" in p["found"] for p in receipt["problems"]), name


def test_a_predictions_request_by_ids_answers_at_once_with_what_is_there(busy: RunningDaemon, tmp_path: Path):
    ask(busy, tmp_path, "stop", action="cancel", folds=[3])
    cancelled = busy.wait_for_result("iris", "quick", 3)

    receipt = ask(busy, tmp_path, "get", action="predictions", folds=[1, 2, 3, 99])
    _, content = answer(busy, "get")

    assert receipt["results"] == "outbox/requests/get"
    assert content["unknown"] == [99]
    assert (content[1]["state"], content[1]["folder"]) == ("RUNNING", None)
    assert content[2]["state"] == "TODO"
    assert (content[3]["state"], content[3]["new"]) == ("CANCELLED", True)
    assert content[3]["message"] == cancelled["message"]
    # it was handed out: so it waits in the outbox no more
    wait_for(lambda: not busy.result_folder("iris", "quick", 3).exists(), "the result to leave the outbox")


def test_the_arrays_of_an_answer_are_described_so_that_a_program_can_read_them(daemon: RunningDaemon, tmp_path: Path):
    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    daemon.drop(fold_bundle(tmp_path / "team", [1, 2], submission=7), "folds")
    daemon.wait_for_result("iris", "7", 1)
    daemon.wait_for_result("iris", "7", 2)
    original = np.load(daemon.result_folder("iris", "7", 1) / "test_predictions.npy")

    ask(daemon, tmp_path, "get", action="predictions", folds=[1, 2])
    folder, content = answer(daemon, "get")

    part = content[1]["test_predictions"]
    array = np.load(folder / part["file"])
    assert (part["dtype"], tuple(part["shape"])) == ("<f8", array.shape)
    assert np.array_equal(array, original)
    assert content[1]["columns"] == ["setosa", "versicolor", "virginica"]
    assert content[2]["full_train_predictions"]["shape"] == [75, 3]
    assert json.loads((folder / "1" / "result.json").read_text())["state"] == "TESTED"


def test_each_new_result_is_handed_out_once_also_over_a_restart(daemon: RunningDaemon, tmp_path: Path):
    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    daemon.drop(iris_bundle(tmp_path / "other", name="other"), "datasets")
    daemon.drop(fold_bundle(tmp_path / "a", [1, 2], submission=7), "folds")
    daemon.drop(fold_bundle(tmp_path / "b", [3], submission=8, dataset="other"), "folds")
    daemon.drop(fold_bundle(tmp_path / "c", [4], submission=9, code="raise ValueError('no')"), "folds")
    for submission, fold, dataset in (("7", 1, "iris"), ("7", 2, "iris"), ("8", 3, "other"), ("9", 4, "iris")):
        daemon.wait_for_result(dataset, submission, fold)

    ask(daemon, tmp_path, "other", action="predictions", new=True, dataset="other")
    _, of_other = answer(daemon, "other")
    daemon.stop(number=signal.SIGKILL)
    daemon.start()
    ask(daemon, tmp_path, "rest", action="predictions", new=True)
    _, rest = answer(daemon, "rest")
    daemon.stop(number=signal.SIGKILL)
    daemon.start()
    ask(daemon, tmp_path, "none", action="predictions", new=True)
    _, none = answer(daemon, "none")

    assert set(of_other) == {3, "unknown"}
    assert set(rest) == {1, 2, 4, "unknown"}  # an error is a result too
    assert set(none) == {"unknown"}
    waiting = [path for path in daemon.spool.outbox.glob("*/*/*/result.json") if "requests" not in path.parts]
    assert waiting == []
    ask(daemon, tmp_path, "again", action="predictions", folds=[1])
    _, again = answer(daemon, "again")
    assert (again[1]["new"], again[1]["state"]) == (False, "TESTED")


def test_a_daemon_killed_between_the_line_and_the_rename_of_an_answer_publishes_it_at_the_next_start(
    make_daemon: StartDaemon, tmp_path: Path
):
    daemon = make_daemon().start()
    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    daemon.drop(fold_bundle(tmp_path / "team", [1], submission=7), "folds")
    daemon.wait_for_result("iris", "7", 1)
    ask(daemon, tmp_path, "get", action="predictions", folds=[1])
    folder, _ = answer(daemon, "get")
    daemon.stop(number=signal.SIGKILL)
    # as it was just before the rename
    ticket = daemon.catalog("PredictionsDelivered")[0]["ticket"]
    staging = daemon.spool.outbox / ".staging-requests"
    folder.rename(staging / str(ticket))

    daemon.start()

    assert set(answer(daemon, "get")[1]) == {1, "unknown"}


def test_splitting_again_is_refused_unless_forced_and_then_what_has_not_ended_runs_on_the_new_split(
    busy: RunningDaemon, tmp_path: Path
):
    busy.wait_for_receipt("datasets", "iris")
    refused = ask(busy, tmp_path, "other", status="rejected", action="split", dataset="iris", held_out_test=0.2)
    assert "`force: true`" in refused["problems"][0]["expected"]

    new = {"dataset": "iris", "held_out_test": 0.2, "random_state": 1}
    receipt = ask(busy, tmp_path, "forced", action="split", **new, force=True)

    assert receipt["split"] in ("waiting", "done")
    wait_for(lambda: busy.receipt("requests", "forced")["split"] == "done", "the split")  # type: ignore[index]
    assert busy.receipt("requests", "forced")["n_train"] == 120  # type: ignore[index]
    wait_for(lambda: ("1", 2) in {(x["fold"], x["attempt"]) for x in busy.catalog("FoldStarted")}, "attempt 2")
    ask(busy, tmp_path, "stop", action="cancel", folds=[1])
    result = busy.wait_for_result("iris", "quick", 5)
    assert (result["held_out_test"], result["n_train"]) == (0.2, 120)
    assert len(np.load(busy.result_folder("iris", "quick", 5) / "full_train_predictions.npy")) == 120


def test_the_receipt_of_a_dataset_tells_when_its_split_is_done_or_why_it_failed(daemon: RunningDaemon, tmp_path: Path):
    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    wait_for(lambda: (daemon.receipt("datasets", "iris") or {}).get("split") == "done", "the split")
    daemon.drop(iris_bundle(tmp_path / "bad", name="bad"), "datasets")
    bad = iris_bundle(tmp_path / "worse", name="worse", packed=False)
    (bad / "iris.csv").write_text("a,b\n1,2\n3,4\n")
    daemon.drop(bad, "datasets")

    wait_for(lambda: (daemon.receipt("datasets", "worse") or {}).get("split") == "failed", "the failure")
    assert "species" in daemon.receipt("datasets", "worse")["reason"]  # type: ignore[index]


def test_force_with_other_files_trains_the_new_code_and_cancels_what_runs_with_the_old(
    make_daemon: StartDaemon, tmp_path: Path
):
    daemon = make_daemon(slots=2).start()
    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    daemon.drop(fold_bundle(tmp_path / "old", [1, 2], submission=7, code=slow(600)), "folds")
    daemon.wait_until_running(2)

    new = fold_bundle(tmp_path / "new", [1], submission=7, code=FOREST, force="submission, submission_fold")
    daemon.drop(new, "folds")

    result = daemon.wait_for_result("iris", "7", 1)
    assert (result["state"], result["attempt"]) == ("TESTED", 2)
    other = daemon.wait_for_result("iris", "7", 2)
    assert (other["state"], other["message"]) == ("CANCELLED", "cancelled, for its submission's files were replaced")
    assert result["submission_sha256"] != other["submission_sha256"]
    told = history(daemon, 1)
    whats = [moment["what"] for moment in told["history"]]
    assert whats.index("started") < whats.index("submission's files replaced") < whats.index("accepted again")
    assert [moment["attempt"] for moment in told["history"] if moment["what"] == "started"] == [1, 2]
    assert [m["attempt"] for m in told["history"] if m["what"] == "attempt ended without a result"] == [1]
    digests = {line["code_digest"] for line in daemon.catalog("FoldsAccepted")}
    assert all(any(digest in moment["detail"] for moment in told["history"]) for digest in digests)
    assert told["archived_results"] == ["store/results/iris/7/1/1", "store/results/iris/7/1/2"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can drop bundles as two users")
def test_one_owner_can_not_force_cancel_reprioritise_rerun_or_fetch_what_is_anothers(
    make_daemon: StartDaemon, tmp_path: Path
):
    daemon = make_daemon(slots=1).start()
    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets", owner=4001)
    daemon.drop(fold_bundle(tmp_path / "hers", [1], submission=7, code=slow(600)), "folds", owner=4001)
    daemon.drop(fold_bundle(tmp_path / "also", [2], submission=8), "folds", owner=4001)
    daemon.wait_until_running()
    daemon.wait_for_receipt("folds", "also", status="accepted")

    for name, fields in {
        "cancel": {"action": "cancel", "folds": [1]},
        "priority": {"action": "priority", "folds": [2], "priority": "H"},
        "rerun": {"action": "rerun", "folds": [1]},
        "submission": {"action": "cancel", "submission": 7},
        "split": {"action": "split", "dataset": "iris", "held_out_test": 0.1, "force": True},
    }.items():
        receipt = ask(daemon, tmp_path, name, status="rejected", owner=4002, **fields)
        assert "your own" in str(receipt) or "one of your" in str(receipt), name
    forced = fold_bundle(tmp_path / "force", [1], submission=7, force="submission, submission_fold")
    daemon.drop(forced, "folds", owner=4002)
    daemon.wait_for_receipt("folds", "force", status="rejected")
    fetched = ask(daemon, tmp_path, "fetch", owner=4002, action="predictions", folds=[1])
    assert (fetched["folds"], fetched["unknown"]) == ([], [1])

    ask(daemon, tmp_path, "hers-she-may", owner=4001, action="cancel", folds=[1])
    assert daemon.wait_for_result("iris", "7", 1)["state"] == "CANCELLED"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can drop bundles as two users")
def test_one_owner_can_not_read_what_is_anothers_and_takes_away_what_is_hers():
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are private
        Path(folder).chmod(0o755)
        daemon = RunningDaemon(Path(folder))
        try:
            daemon.start()
            _one_reads_and_takes_what_is_hers(daemon, Path(folder))
        finally:
            daemon.end()


def _one_reads_and_takes_what_is_hers(daemon: RunningDaemon, folder: Path) -> None:
    daemon.drop(iris_bundle(folder / "iris"), "datasets")
    daemon.drop(fold_bundle(folder / "hers", [1, 2], submission=7), "folds", owner=4001)
    daemon.wait_for_result("iris", "7", 1)
    daemon.wait_for_result("iris", "7", 2)
    ask(daemon, folder, "fetch", owner=4001, action="predictions", folds=[2])
    answer(daemon, "fetch")
    result = daemon.result_folder("iris", "7", 1)
    home = folder / "home"
    home.mkdir()
    home.chmod(0o777)

    def as_user(uid: int, *command: object) -> int:
        become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        return subprocess.run([*become, *map(str, command)], capture_output=True, check=False).returncode

    files = (result / "result.json", daemon.spool.outbox / "requests" / "fetch" / "2" / "test_predictions.npy")
    assert [as_user(4002, "cat", file) for file in files] == [1, 1]
    assert [as_user(4001, "cat", file) for file in files] == [0, 0]
    assert as_user(4002, "mv", result, home / "not-mine") == 1
    assert as_user(4001, "mv", result, home / "mine") == 0
    wait_for(lambda: daemon.catalog("FoldTaken"), "the result to be seen as taken")


def test_users_behind_a_shared_account_are_owners_of_their_own(make_daemon: StartDaemon, tmp_path: Path):
    daemon = make_daemon(slots=1, shared_accounts=[os.getuid()]).start()
    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    daemon.drop(fold_bundle(tmp_path / "hers", [1], submission=7, code=slow(600), user="alice"), "folds")
    daemon.wait_until_running()

    if os.getuid() != 0:  # root may everything
        ask(daemon, tmp_path, "bob", status="rejected", action="cancel", folds=[1], user="bob")
    ask(daemon, tmp_path, "alice", action="cancel", folds=[1], user="alice")

    result = daemon.wait_for_result("iris", "7", 1)
    assert (result["state"], result["owner"]) == ("CANCELLED", f"{os.getuid()}/alice")


def test_another_users_name_is_refused_from_an_account_that_is_not_shared(daemon: RunningDaemon, tmp_path: Path):
    daemon.drop(fold_bundle(tmp_path / "x", [1], submission=7, user="somebody-else"), "folds")

    receipt = daemon.wait_for_receipt("folds", "x", status="rejected")

    assert receipt["problems"][0]["field"] == "user"
