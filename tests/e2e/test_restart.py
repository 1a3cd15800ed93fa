"""Killed, stopped, started again: every fold ends with exactly one result."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.bundles import fold_bundle, iris_bundle, slow
from tests.conftest import StartDaemon
from tests.daemon_process import RunningDaemon, wait_for


def test_after_kill_9_running_folds_are_adopted_and_each_fold_has_one_result(daemon: RunningDaemon, tmp_path: Path):
    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    running, waiting = [0, 1], list(range(2, 22))
    folds = [*running, *waiting]
    daemon.drop(fold_bundle(tmp_path / "team_a", running, submission=24, code=slow(8.0)), "folds")
    daemon.wait_until_running(2)
    daemon.drop(fold_bundle(tmp_path / "team_b", waiting, submission=25), "folds")
    daemon.wait_for_receipt("folds", "team_b")

    daemon.stop(number=signal.SIGKILL)
    daemon.start()

    for fold in folds:
        assert daemon.wait_for_result("iris", "24" if fold in running else "25", fold)["attempt"] == 1
    assert len(daemon.events("fold_adopted")) == 2
    for event in ("FoldStarted", "FoldTested", "FoldPublished"):
        assert Counter(line["fold"] for line in daemon.catalog(event)) == Counter(map(str, folds))
    assert daemon.catalog("FoldLost") == []


def test_folds_that_ended_while_no_daemon_ran_are_collected(daemon: RunningDaemon, tmp_path: Path):
    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    daemon.drop(fold_bundle(tmp_path / "team_a", [1], submission=24, code=slow(0.5)), "folds")
    daemon.wait_until_running()

    daemon.stop(number=signal.SIGKILL)
    wait_for((daemon.spool.run("1", 1) / "out" / "result.json").exists, "the fold to end alone")
    wait_for(lambda: not daemon.leftovers(), "the runner to end by itself")
    daemon.start()

    assert daemon.wait_for_result("iris", "24", 1)["attempt"] == 1
    assert len(daemon.events("fold_ended_meanwhile")) == 1


def test_a_fold_whose_processes_all_died_runs_again(daemon: RunningDaemon, tmp_path: Path):
    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    daemon.drop(fold_bundle(tmp_path / "team_a", [1], submission=24, code=slow(1.0)), "folds")
    daemon.wait_until_running()
    runners = daemon.process.children(recursive=True)

    daemon.stop(number=signal.SIGKILL)
    for process in runners:
        process.kill()
    daemon.start()

    assert daemon.wait_for_result("iris", "24", 1)["attempt"] == 2
    assert len(daemon.catalog("FoldLost")) == 1


def test_sigterm_stops_cleanly_and_leaves_running_folds_to_the_next_start(daemon: RunningDaemon, tmp_path: Path):
    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    daemon.drop(fold_bundle(tmp_path / "team_a", [1], submission=24, code=slow(2.0)), "folds")
    daemon.wait_until_running()

    assert daemon.stop() == 0
    daemon.start()

    assert daemon.wait_for_result("iris", "24", 1)["attempt"] == 1


def test_on_stop_end_leaves_no_process_and_the_folds_run_again(make_daemon: StartDaemon, tmp_path: Path):
    daemon = make_daemon(on_stop="end").start()
    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    daemon.drop(fold_bundle(tmp_path / "team_a", [1], submission=24, code=slow(1.5)), "folds")
    daemon.wait_until_running()

    assert daemon.stop() == 0
    wait_for(lambda: not daemon.leftovers(), "every process to end")
    assert not (daemon.result_folder("iris", "24", 1)).exists()
    daemon.start()

    assert daemon.wait_for_result("iris", "24", 1)["attempt"] == 2


@pytest.mark.parametrize("good", [True, False], ids=["accepted", "rejected"])
def test_a_bundle_whose_line_was_written_before_a_crash_is_not_taken_twice(
    make_daemon: StartDaemon, tmp_path: Path, good: bool
):
    daemon = make_daemon()
    incoming = daemon.spool.root / "incoming/datasets/iris"
    bundle = iris_bundle(tmp_path / "iris", elements=["classifier"] if good else ["clairvoyant"], packed=False)
    # killed at the first rename of the bundle: its line is durable, and it still lies there
    die = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", str(incoming), "-e", "trace=rename"]
    daemon.start(under=[*die, "-e", "inject=rename:signal=KILL"])
    shutil.copytree(bundle, incoming.with_name(".iris"))
    subprocess.run(["mv", "-T", str(incoming.with_name(".iris")), str(incoming)], check=True)
    wait_for(lambda: daemon.has_ended, "the crash")
    assert incoming.exists()

    daemon.start()

    wait_for(lambda: not incoming.exists(), "the bundle to be cleared")
    wait_for(lambda: daemon.catalog("BundlesCleared"), "its being cleared to be noted")
    event, other = ("DatasetAccepted", "BundleRejected") if good else ("BundleRejected", "DatasetAccepted")
    assert (len(daemon.catalog(event)), len(daemon.catalog(other))) == (1, 0)
    assert (daemon.spool.root / "rejected/datasets/iris/REASON.txt").exists() is not good


def test_sighup_reloads_the_configuration(daemon: RunningDaemon, tmp_path: Path):
    daemon.configure(slots=1, max_attempts=7)
    daemon.send(signal.SIGHUP)

    (event,) = wait_for(lambda: daemon.events("configuration_reloaded"), "the reload")
    assert event["changed"] == ["slots", "max_attempts"]

    daemon.configure(slots="many")
    daemon.send(signal.SIGHUP)

    (event,) = wait_for(lambda: daemon.events("configuration_not_reloaded"), "the refusal")
    assert "slots" in event["reason"]
    assert not daemon.has_ended
