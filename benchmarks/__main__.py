"""``python -m benchmarks [NAME …]``: runs the measurements named, or all, and prints their tables."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import idle, latency, status_views, threads, throughput

_MEASUREMENTS: dict[str, Callable[[Path], str]] = {
    "iris": lambda folder: throughput.compare("iris", folds=300, cold_folds=12, rounds=5, folder=folder),
    "digits": lambda folder: throughput.compare("digits", folds=40, cold_folds=8, rounds=5, folder=folder),
    "digits-long": lambda folder: throughput.compare("digits-long", folds=10, cold_folds=0, rounds=5, folder=folder),
    "celery": lambda folder: throughput.compare_with_celery("iris", folds=300, rounds=5, folder=folder),
    "threads": lambda folder: threads.measure(rounds=5, folder=folder),
    "latency": lambda folder: latency.measure(drops=40, folder=folder),
    "idle": lambda folder: idle.measure(seconds=20, folder=folder),
    "status": lambda folder: status_views.measure(folds=100_000, seconds=20, folder=folder),
}


def main() -> None:
    wanted = sys.argv[1:] or list(_MEASUREMENTS)
    unknown = set(wanted) - set(_MEASUREMENTS)
    if unknown:
        sys.exit(f"no such measurement: {', '.join(sorted(unknown))}; there are {', '.join(_MEASUREMENTS)}")
    tables = []
    for name in wanted:
        print(f"{name}:", flush=True)
        # beside the working folder rather than in /tmp, which may be in memory and flatter us
        with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as folder:
            tables.append(_MEASUREMENTS[name](Path(folder)))
    print("\n" + "\n\n".join(tables))


main()
