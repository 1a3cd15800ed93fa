"""Folds a second of Celery and Redis, run as the REST service did: two prefork workers, JSON, results polled."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd
from celery import Celery  # type: ignore[import-untyped]
from sklearn.model_selection import train_test_split

from benchmarks import workload

_POLL_SECONDS = 0.02


class CeleryFolds:
    """A Redis server and a Celery worker of their own; stopped at the end of the with block."""

    def __init__(
        self, name: str, *, folds: int, csv: Path, folder: Path, processes: int, process_a_fold: bool = False
    ) -> None:
        redis = shutil.which("redis-server")
        if redis is None:
            raise FileNotFoundError("this measurement needs redis-server; on Debian: apt install redis-server")
        self._name, self._folds = name, folds
        self._folder = folder / f"celery-{process_a_fold}"
        self._turn = itertools.count()
        self._submissions = self._folder / "submissions"
        self._submissions.mkdir(parents=True)
        train, test = train_test_split(pd.read_csv(csv), test_size=workload.WORKLOADS[name][2], random_state=42)
        self._n_train = len(train)
        train.to_csv(self._folder / "train.csv", index=False)
        test.to_csv(self._folder / "test.csv", index=False)
        # a short path: a socket's may have 107 bytes
        socket = f"/tmp/datarun-bench-{os.getpid()}-{process_a_fold:d}.sock"
        url = f"redis+socket://{socket}"
        environment = {
            **os.environ, "DATARUN_BENCH_REDIS": url, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
        }  # fmt: skip
        self._app = Celery(broker=url, backend=url)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._redis = subprocess.Popen([redis, "--port", "0", "--unixsocket", socket, "--save", ""], **quiet)
        worker = [sys.executable, "-m", "celery", "-A", "benchmarks.celery_tasks", "worker", "-P", "prefork"]
        worker += ["--concurrency", str(processes), "--loglevel", "error"]
        worker += ["--max-tasks-per-child", "1"] if process_a_fold else []
        self._worker = subprocess.Popen(worker, env=environment, **quiet)

    def __enter__(self) -> CeleryFolds:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (self._worker, self._redis):
            process.terminate()
            process.wait(60)

    def __call__(self) -> float:
        turn = next(self._turn)
        calls = [self._call(turn, number) for number in range(self._folds)]
        start = time.monotonic()
        waiting = [self._app.send_task("train_test_fold", call) for call in calls]
        while waiting:
            time.sleep(_POLL_SECONDS)
            waiting = [result for result in waiting if not _tested(result)]
        return self._folds / (time.monotonic() - start)

    def _call(self, turn: int, number: int) -> tuple[str, ...]:
        submission = f"sub_{turn}_{number // workload.PER_BUNDLE}"
        folder = self._submissions / submission
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").touch()
        workload.write_classifier(self._name, folder)
        rows = workload.packed(workload.rows(self._n_train, number)["train_is"])
        return str(self._folder), "target", str(self._submissions), submission, rows


def _tested(result: Any) -> bool:
    if not result.ready():
        return False
    state = result.get()[0]
    if state != "TESTED":
        raise RuntimeError(f"a fold in Celery ended as {state}")
    return True
