"""Folds outlive the process that started them; whoever comes next finds them by their run folders."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from datarun_daemon.runner.pool import Pool
from datarun_daemon.runner.protocol import Adoption, FoldFinished, FoldVanished, Report

from .conftest import Data, House, alive, eventually

ROOT = Path(__file__).parents[2]
#: a daemon's pool in a process of its own: starts a fold, tells its server's pid, and waits to be killed
STARTER = """
import select, sys
from array import array
from pathlib import Path
from datarun_daemon.runner.pool import Pool
from datarun_daemon.runner.protocol import FoldJob, Limits, PhaseEnded

prepared, submission, run_folder = map(Path, sys.argv[1:])
pool = Pool(environments={"default": sys.executable})
limits = Limits(30, 60, 400 << 20, 30, 100 << 20, 100_000, 50 << 20)
pool.start(FoldJob("a", 1, "iris", prepared, submission, ("classifier",), run_folder, array("q", range(60)), limits))
print(*pool.pids, flush=True)
while True:
    pool.look()
    select.select([pool], [], [], 0.1)
"""
SLOW = """
    import os, time
    import numpy as np
    class Classifier:
        def fit(self, X, y):
            print("pid", os.getpid(), flush=True)
            while not os.path.exists("../go"):
                time.sleep(0.02)
        def predict_proba(self, X):
            return np.ones((len(X), 3))
"""


class Orphan:
    """A fold whose pool was killed while it trained."""

    def __init__(self, house: House, data: Data) -> None:
        house._count += 1
        self.run_folder = house.folder / "runs" / f"orphan-{house._count}" / "1"
        submission = house.submission(classifier=SLOW)
        self.starter = subprocess.Popen(
            [sys.executable, "-c", STARTER, data.folder, submission, self.run_folder],
            stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )
        assert self.starter.stdout is not None
        self.server = int(self.starter.stdout.readline())
        log = self.run_folder / "log.head"
        assert eventually(lambda: log.exists() and log.read_text().endswith("\n"), seconds=30)
        self.fold = int(log.read_text().split()[1])
        self.starter.kill()
        self.starter.wait()
        self.starter.stdout.close()

    def go(self) -> None:
        (self.run_folder / "go").touch()

    def adopted_by(self, pool: Pool) -> Adoption:
        return pool.adopt(self.run_folder, fold="a", attempt=1, dataset="iris")

    def end(self) -> None:
        if alive(self.server):
            os.kill(self.server, signal.SIGKILL)
        eventually(lambda: not alive(self.fold))


@pytest.fixture
def orphan(house: House, iris: Data) -> Iterator[Orphan]:
    orphan = Orphan(house, iris)
    yield orphan
    orphan.end()


def reported(house: House) -> Report:
    return house.wait_for(lambda report: isinstance(report, FoldFinished | FoldVanished) and report.fold == "a")


def test_a_fold_that_outlived_its_daemon_is_watched_to_its_end(house: House, orphan: Orphan):
    assert Adoption.ALIVE is orphan.adopted_by(house.pool)
    assert house.pool.running["a", 1].adopted

    orphan.go()

    assert FoldFinished("a", 1, orphan.run_folder) == reported(house)
    assert json.loads((orphan.run_folder / "out" / "result.json").read_bytes())["state"] == "TESTED"
    assert ("a", 1) not in house.pool.running


def test_a_fold_that_ended_without_a_daemon_is_found(house: House, orphan: Orphan):
    orphan.go()

    assert eventually(lambda: (orphan.run_folder / "out" / "result.json").exists())
    assert eventually(lambda: orphan.adopted_by(house.pool) is Adoption.FINISHED)


def test_servers_without_daemon_and_folds_end(orphan: Orphan):
    assert alive(orphan.server)

    orphan.go()

    assert eventually(lambda: not alive(orphan.server))


def test_a_stop_file_ends_an_adopted_fold(house: House, orphan: Orphan):
    orphan.adopted_by(house.pool)

    house.pool.stop("a", 1, reason="its owner asked")

    assert FoldFinished("a", 1, orphan.run_folder) == reported(house)
    result = json.loads((orphan.run_folder / "out" / "result.json").read_bytes())
    assert (result["state"], result["message"]) == ("CANCELLED", "its owner asked")
    assert not alive(orphan.fold)


def test_an_adopted_fold_whose_processes_are_killed_has_vanished(house: House, orphan: Orphan):
    orphan.adopted_by(house.pool)

    os.kill(orphan.server, signal.SIGKILL)

    assert isinstance(reported(house), FoldVanished)
    assert eventually(lambda: not alive(orphan.fold))
    assert Adoption.LOST is orphan.adopted_by(house.pool)


def test_signals_for_the_daemon_do_not_end_a_fold(house: House, orphan: Orphan):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(orphan.server, number)
    orphan.go()

    assert eventually(lambda: (orphan.run_folder / "out" / "result.json").exists())


def test_nothing_is_lost_but_a_fold_when_a_server_dies(tmp_path: Path, house: House, iris: Data):
    own = House(tmp_path)
    job = own.start(iris, own.submission(classifier=SLOW))
    assert eventually(lambda: bool(own.pool.look()) or (job.run_folder / "log.head").exists(), seconds=30)
    (server,) = own.pool.pids

    os.kill(server, signal.SIGKILL)

    assert isinstance(own.end_of(job), FoldVanished)
    good = own.start(iris, own.submission(classifier=SLOW))
    (good.run_folder / "go").touch()
    assert isinstance(own.end_of(good), FoldFinished)
    own.pool.close()
