"""From the rename of a digested bundle to its result in the outbox, on an idle daemon; and the same work in-process."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks import workload
from benchmarks.live_daemon import LiveDaemon
from benchmarks.rounds import table

_PAUSE_SECONDS = 0.2


def measure(*, drops: int, folder: Path) -> str:
    csv = folder / "iris.csv"
    workload.write_csv("iris", csv)
    data = workload.split("iris", csv)
    figures: dict[str, list[float]] = {"datarun, rename to result": [], "the same work in-process": []}
    with LiveDaemon(folder) as daemon:
        daemon.drop(workload.write_dataset("iris", folder / "bundles" / "iris"), "datasets", "iris")
        for number in range(-3, drops):
            submission = f"s{number + 3}"
            bundle = workload.write_folds(
                "iris", folder / "bundles" / submission, submission, 1, n_train=len(data[0])
            )
            result = daemon.result("iris", submission, f"{submission}-0")
            time.sleep(_PAUSE_SECONDS)
            start = time.monotonic()
            daemon.drop(bundle, "folds", submission)
            daemon.wait_for([result], poll_seconds=0.0005)
            seconds = time.monotonic() - start
            daemon.check_tested([result])
            start = time.monotonic()
            workload.run_fold("iris", data, workload.rows(len(data[0]), 0)["train_is"], folder / f"here-{number}")
            if number >= 0:  # the first are to warm up
                figures["datarun, rename to result"].append(seconds * 1000)
                figures["the same work in-process"].append((time.monotonic() - start) * 1000)
    return table(f"{drops} drops of one iris fold", "ms", figures, against="the same work in-process")
