"""Folds a second: through the whole daemon on two slots, by joblib with two processes, by a cold process each."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from joblib import Parallel, delayed

from benchmarks import workload
from benchmarks.celery_folds import CeleryFolds
from benchmarks.live_daemon import LiveDaemon
from benchmarks.rounds import in_turn, table

_PROCESSES = 2


def compare(name: str, *, folds: int, cold_folds: int, rounds: int, folder: Path) -> str:
    """A table of the contestants on ``folds`` folds of a workload; without cold processes if ``cold_folds`` is 0."""
    csv = folder / f"{name}.csv"
    workload.write_csv(name, csv)
    data = workload.split(name, csv)
    with LiveDaemon(folder, slots=_PROCESSES) as daemon:
        dataset = workload.write_dataset(name, folder / "bundles" / name)
        daemon.drop(dataset, "datasets", name)
        contestants: dict[str, Callable[[], float]] = {
            "datarun, 2 slots": _Daemon(daemon, name, folds, len(data[0]), folder),
            "joblib, 2 processes": _Joblib(name, folds, data, folder),
        }
        if cold_folds:
            contestants["a cold python process each, 2 at a time"] = _Cold(name, cold_folds, csv, folder)
        for warm_up in list(contestants.values())[:2]:
            warm_up()
        figures = in_turn(contestants, rounds=rounds)
    title = f"{folds} {name} folds, {workload.WORKLOADS[name][1]} trees"
    return table(title, "folds/s", figures, against="joblib, 2 processes")


def compare_with_celery(name: str, *, folds: int, rounds: int, folder: Path) -> str:
    """A table of the daemon and of Celery with Redis on ``folds`` folds of a workload."""
    csv = folder / f"{name}.csv"
    workload.write_csv(name, csv)
    n_train = len(workload.split(name, csv)[0])
    with (
        LiveDaemon(folder, slots=_PROCESSES) as daemon,
        CeleryFolds(name, folds=folds, csv=csv, folder=folder, processes=_PROCESSES) as celery,
        CeleryFolds(
            name, folds=12, csv=csv, folder=folder, processes=_PROCESSES, process_a_fold=True
        ) as fresh_celery,
    ):
        daemon.drop(workload.write_dataset(name, folder / "bundles" / name), "datasets", name)
        contestants = {
            "datarun, 2 slots": _Daemon(daemon, name, folds, n_train, folder),
            "Celery and Redis, 2 workers": celery,
            "the same, a new process for each fold": fresh_celery,
        }
        for warm_up in contestants.values():
            warm_up()
        figures = in_turn(contestants, rounds=rounds)
    title = f"{folds} {name} folds, {workload.WORKLOADS[name][1]} trees"
    return table(title, "folds/s", figures, against="Celery and Redis, 2 workers")


class _Daemon:
    def __init__(self, daemon: LiveDaemon, name: str, folds: int, n_train: int, folder: Path) -> None:
        self._daemon, self._name, self._folds, self._n_train, self._folder = daemon, name, folds, n_train, folder
        self._turn = itertools.count()

    def __call__(self) -> float:
        turn = next(self._turn)
        bundles, results = [], []
        for number in range(self._folds // workload.PER_BUNDLE):
            submission = f"{self._name}-{turn}-{number}"
            folder = self._folder / "bundles" / submission
            bundles.append(
                workload.write_folds(self._name, folder, submission, workload.PER_BUNDLE, n_train=self._n_train)
            )
            ids = (f"{submission}-{k}" for k in range(workload.PER_BUNDLE))
            results += [self._daemon.result(self._name, submission, fold) for fold in ids]
        start = time.monotonic()
        for bundle in bundles:
            self._daemon.drop(bundle, "folds", bundle.name)
        self._daemon.wait_for(results, poll_seconds=0.02)
        seconds = time.monotonic() - start
        self._daemon.check_tested(results)
        return len(results) / seconds


class _Joblib:
    def __init__(self, name: str, folds: int, data: tuple[object, object, object], folder: Path) -> None:
        self._name, self._folds, self._data, self._folder = name, folds, data, folder
        self._turn = itertools.count()
        self._parallel = Parallel(n_jobs=_PROCESSES)

    def __call__(self) -> float:
        turn = next(self._turn)
        n_train = len(self._data[0])  # type: ignore[arg-type]
        start = time.monotonic()
        self._parallel(
            delayed(workload.run_fold)(
                self._name, self._data, workload.rows(n_train, k)["train_is"], self._folder / f"joblib-{turn}-{k}"
            )
            for k in range(self._folds)
        )
        return self._folds / (time.monotonic() - start)


class _Cold:
    def __init__(self, name: str, folds: int, csv: Path, folder: Path) -> None:
        self._name, self._folds, self._csv, self._folder = name, folds, csv, folder
        self._turn = itertools.count()

    def __call__(self) -> float:
        turn = next(self._turn)

        def run(number: int) -> None:
            out = self._folder / f"cold-{turn}-{number}"
            command = [sys.executable, "-m", "benchmarks.workload", self._name, str(self._csv), str(number), str(out)]
            subprocess.run(command, check=True)

        start = time.monotonic()
        with ThreadPoolExecutor(_PROCESSES) as threads:
            list(threads.map(run, range(self._folds)))
        return self._folds / (time.monotonic() - start)
