"""What an isolated iris fold costs beyond its own fit: latency on an idle machine, throughput through slots, by part.

Run: ``python benchmarks/fold_overhead.py [--slots 2] [--folds 200]``. Figures are of this machine, of one run,
side by side with the same work in this process.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import statistics
import sys
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path

from datarun_daemon.runner import processes
from datarun_daemon.runner.pool import Pool
from datarun_daemon.runner.protocol import (
    FoldFinished,
    FoldJob,
    FoldVanished,
    Limits,
    Prepared,
    PrepareFailed,
    PrepareTask,
    Report,
    ServerReady,
)

CLASSIFIER = """
from sklearn.ensemble import RandomForestClassifier


class Classifier:
    def __init__(self):
        self.clf = RandomForestClassifier(n_estimators=10, random_state=1)

    def fit(self, X, y):
        self.clf.fit(X, y)

    def predict_proba(self, X):
        return self.clf.predict_proba(X)
"""
LIMITS = Limits(60, 120, 1 << 30, 100, 1 << 30, 1 << 20, 1 << 30)


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pool = Pool(environments={"default": sys.executable})
        self.submission = folder / "submission"
        self.submission.mkdir()
        (self.submission / "classifier.py").write_text(CLASSIFIER)
        self.started = 0
        self.wait(lambda report: isinstance(report, ServerReady))
        data = folder / "iris.csv"
        write_iris(data)
        self.prepared = folder / "prepared"
        self.pool.prepare(PrepareTask("iris", data, "species", ("classifier",), 0.2, 42, self.prepared))
        report = self.wait(lambda report: isinstance(report, Prepared | PrepareFailed))
        assert isinstance(report, Prepared), report
        self.n_train = report.n_train

    def wait(self, wanted: Callable[[Report], bool]) -> Report:
        while True:
            for report in self.pool.look():
                if wanted(report):
                    return report
            select.select([self.pool], [], [], 0.5)

    def start(self) -> Path:
        self.started += 1
        run_folder = self.folder / "runs" / str(self.started) / "1"
        rows = array("q", range(self.n_train * 3 // 4))
        job = FoldJob(
            str(self.started), 1, "iris", self.prepared, self.submission, ("classifier",), run_folder, rows, LIMITS
        )
        self.pool.start(job)
        return run_folder

    def one(self) -> tuple[float, dict[str, float]]:
        """Seconds from start() to the report, and what result.json says."""
        begin = time.perf_counter()
        run_folder = self.start()
        self.wait(lambda report: isinstance(report, FoldFinished | FoldVanished))
        seconds = time.perf_counter() - begin
        result = json.loads((run_folder / "out" / "result.json").read_bytes())
        assert result["state"] == "TESTED", result
        return seconds, result

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time so far, by kind of process; of folds, what their keeper has waited for (in 10 ms steps)."""
        used = {"this process": time.process_time(), "folds": 0.0}
        for server in self.pool.pids:
            for pid in processes.descendants(server):
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                used[name] = used.get(name, 0.0) + processes.own_cpu_seconds(pid)
                if name == "datarun-keeper":
                    used["folds"] += processes.tree_cpu_seconds(pid) - sum(
                        map(processes.own_cpu_seconds, (pid, *processes.descendants(pid)))
                    )
        return used

    def through(self, slots: int, folds: int) -> float:
        """Folds a second with that many at once."""
        running, done, begun = 0, 0, 0
        begin = time.perf_counter()
        while done < folds:
            while running < slots and begun < folds:
                self.start()
                running, begun = running + 1, begun + 1
            select.select([self.pool], [], [], 0.5)
            for report in self.pool.look():
                assert not isinstance(report, FoldVanished), report
                if isinstance(report, FoldFinished):
                    running, done = running - 1, done + 1
        return folds / (time.perf_counter() - begin)


def write_iris(path: Path) -> None:
    from sklearn.datasets import load_iris

    iris = load_iris()
    lines = ["sepal length,sepal width,petal length,petal width,species"]
    rows = zip(iris.data.tolist(), iris.target, strict=True)
    lines += [f"{','.join(map(repr, row))},{iris.target_names[y]}" for row, y in rows]
    path.write_text("\n".join(lines) + "\n")


def in_process_seconds() -> float:
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier

    X, y = load_iris(return_X_y=True)
    seconds = []
    for _ in range(40):
        begin = time.perf_counter()
        classifier = RandomForestClassifier(n_estimators=10, random_state=1).fit(X[:90], y[:90])
        classifier.predict_proba(X[:120])
        classifier.predict_proba(X[120:])
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--slots", type=int, default=2)
    arguments.add_argument("--folds", type=int, default=200)
    options = arguments.parse_args()
    plain = in_process_seconds()
    folder = Path(tempfile.mkdtemp(prefix="fold-overhead-"))
    try:
        bench = Bench(folder)
        bench.one()
        rounds = []
        for _ in range(30):
            time.sleep(0.1)  # the spare child gets ready: an idle machine
            rounds.append(bench.one())
        phases = {
            name: statistics.median(result[f"{name}_seconds"] for _, result in rounds)
            for name in ("train", "validation", "test")
        }
        total = statistics.median(seconds for seconds, _ in rounds)
        to_exit = statistics.median(result["wall_seconds"] for _, result in rounds)
        print(f"{os.cpu_count()} cores; in this process            {1000 * plain:6.1f} ms")
        print(f"start() to FoldFinished, idle        {1000 * total:6.1f} ms")
        for name, seconds in phases.items():
            print(f"  {name:34} {1000 * seconds:6.1f}")
        print(f"  exit of the process, measuring     {1000 * (to_exit - sum(phases.values())):6.1f}")
        print(f"  messages, result                   {1000 * (total - to_exit):6.1f}")
        for slots in (1, options.slots):
            before = bench.cpu_seconds()
            rate = bench.through(slots, options.folds)
            after = bench.cpu_seconds()
            share = rate * plain / slots
            print(f"{slots} slot(s)                          {rate:6.1f} folds/s ({share:.2f} of in-process)")
            for name, seconds in sorted(after.items()):
                used = 1000 * (seconds - before.get(name, 0.0)) / options.folds
                print(f"  CPU of {name:27} {used:6.1f} ms a fold")
        bench.pool.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
