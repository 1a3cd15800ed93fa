"""What once went wrong for users, told by what must hold instead."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import datarun_daemon
from datarun_daemon.spool.layout import Spool
from tests.bundles import fold_bundle, iris_bundle, slow
from tests.conftest import StartDaemon
from tests.daemon_process import RunningDaemon, wait_for

as_root = pytest.mark.skipif(os.getuid() != 0, reason="needs a second user, which only root can be")


def test_a_catalog_moved_away_costs_no_accepted_bundle(daemon: RunningDaemon, tmp_path: Path):
    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    daemon.wait_for_receipt("datasets", "iris")
    daemon.stop()
    daemon.spool.catalog_file.rename(tmp_path / "catalog.old")

    daemon.start()

    (notice,) = wait_for(lambda: daemon.events("unregistered_bundle_set_aside"), "the notice")
    assert (daemon.spool.root / notice["place"] / "iris.csv").is_file()


def test_a_result_tells_the_code_that_ran_though_it_was_replaced_meanwhile(daemon: RunningDaemon, tmp_path: Path):
    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    daemon.drop(fold_bundle(tmp_path / "old", ["a"], submission=24, code=slow(600)), "folds")
    daemon.wait_until_running()

    forced = fold_bundle(tmp_path / "new", ["b"], submission=24, force="submission, submission_fold")
    daemon.drop(forced, "folds")

    old, new = (daemon.wait_for_result("iris", "24", fold) for fold in ("a", "b"))
    assert (old["state"], new["state"]) == ("CANCELLED", "TESTED")
    assert old["submission_sha256"] != new["submission_sha256"]


def test_a_dataset_that_could_not_be_split_is_accepted_again_once_it_is_mended(daemon: RunningDaemon, tmp_path: Path):
    bundle = iris_bundle(tmp_path / "bad" / "iris", packed=False)
    text = (bundle / "iris.csv").read_text()
    (bundle / "iris.csv").write_text(text.replace("species", "kind", 1))
    daemon.drop(bundle, "datasets")
    wait_for(lambda: daemon.catalog("DatasetSplitFailed"), "the failure")

    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    daemon.drop(fold_bundle(tmp_path / "a", [1], submission=24), "folds")

    assert daemon.wait_for_result("iris", "24", 1)["state"] == "TESTED"
    assert {line["number"] for line in daemon.catalog("DatasetAccepted")} == {1}


def test_the_result_of_a_fold_that_never_ran_names_its_files(daemon: RunningDaemon, tmp_path: Path):
    daemon.drop(fold_bundle(tmp_path / "a", [1], submission=24), "folds")
    daemon.wait_for_receipt("folds", "a")
    daemon.drop(iris_bundle(tmp_path / "iris", split={"held_out_test": 0.9}), "datasets")

    result = daemon.wait_for_result("iris", "24", 1)

    assert (result["state"], result["stage"]) == ("ERROR", "data")
    assert "15 training rows" in result["message"]
    log = daemon.result_folder("iris", "24", 1) / "log.txt"
    assert result["files"]["log.txt"]["bytes"] == log.stat().st_size


@as_root
def test_a_full_disk_delays_receipts_and_results_and_ends_nothing(make_daemon: StartDaemon, tmp_path: Path):
    daemon = make_daemon()
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)], check=True)
    try:
        shutil.copytree(daemon.spool.root, small / "spool", dirs_exist_ok=True)
        daemon.configure(spool=str(small / "spool"))
        daemon.spool = type(daemon.spool)(small / "spool")
        daemon.start()
        daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
        daemon.wait_for_receipt("datasets", "iris")
        daemon.drop(fold_bundle(tmp_path / "bad", ["?"], submission=24, packed=False), "folds")
        ballast = small / "ballast"
        filled = subprocess.run(["dd", "if=/dev/zero", f"of={ballast}", "bs=4k"], capture_output=True, check=False)
        assert b"No space left" in filled.stderr
        wait_for(lambda: daemon.catalog("BundleRejected") or daemon.events("receipt_not_written_yet"), "trouble")
        assert not daemon.has_ended

        ballast.unlink()

        daemon.wait_for_receipt("folds", "bad", status="rejected")
        assert not daemon.has_ended
    finally:
        daemon.end()
        subprocess.run(["umount", "-l", str(small)], check=True)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach; pytest's own are private."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@as_root
def test_members_of_the_group_of_a_shared_spool_see_the_status_and_take_results(open_folder: Path):
    group, member = 4100, 4101
    daemon = RunningDaemon(open_folder)
    for path in (daemon.spool.root, *daemon.spool.root.rglob("*")):
        os.chown(path, 0, group)
    Spool.create(daemon.spool.root, shared=True)
    home = open_folder / "home"
    home.mkdir()
    os.chown(home, member, group)
    become = ["setpriv", f"--reuid={member}", f"--regid={group}", "--clear-groups"]
    # where the tests lie, another user may not be able to read
    shutil.copytree(Path(datarun_daemon.__file__).parent, open_folder / "source" / "datarun_daemon")
    environ = {**os.environ, "PYTHONPATH": str(open_folder / "source")}
    code = (
        "from pathlib import Path; from datarun_daemon.spool.layout import Spool;"
        f"Spool.open(Path({str(daemon.spool.root)!r})).overview_file.read_text()"
    )
    try:
        daemon.start()
        daemon.drop(iris_bundle(open_folder / "iris"), "datasets")
        daemon.drop(fold_bundle(open_folder / "a", [1], submission=24), "folds")
        daemon.wait_for_result("iris", "24", 1)
        wait_for(daemon.overview, "the overview")

        subprocess.run([*become, "/usr/bin/python3", "-c", code], check=True, env=environ, cwd="/")
        subprocess.run([*become, "mv", str(daemon.result_folder("iris", "24", 1)), str(home / "mine")], check=True)

        wait_for(lambda: daemon.catalog("FoldTaken"), "the result to be seen as taken")
    finally:
        daemon.end()
