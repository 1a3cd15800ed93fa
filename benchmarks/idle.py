"""What an idle daemon costs: share of a core, memory, and whether numpy found its way in."""

from __future__ import annotations

import time
from pathlib import Path

import psutil

from benchmarks import workload
from benchmarks.live_daemon import LiveDaemon


def measure(*, seconds: float, folder: Path) -> str:
    with LiveDaemon(folder) as daemon:
        daemon.drop(workload.write_dataset("iris", folder / "bundles" / "iris"), "datasets", "iris")
        bundle = workload.write_folds("iris", folder / "bundles" / "s", "s", 5, n_train=75)
        daemon.drop(bundle, "folds", "s")
        daemon.wait_for([daemon.result("iris", "s", f"s-{k}") for k in range(5)])
        process = psutil.Process(daemon.process.pid)
        time.sleep(3)
        runners = process.children(recursive=True)
        before = _cpu_seconds([process]), _cpu_seconds(runners)
        time.sleep(seconds)
        after = _cpu_seconds([process]), _cpu_seconds(runners)
        shares = [100 * (late - early) / seconds for early, late in zip(before, after, strict=True)]
        resident = process.memory_info().rss / 1e6
        numpy = any("numpy" in mapped.path for mapped in process.memory_maps())
    return (
        f"| an idle daemon, over {seconds:g} s | |\n|---|---|\n"
        f"| the daemon | {shares[0]:.2f} % of a core, {resident:.0f} MB, "
        f"numpy {'LOADED' if numpy else 'not loaded'} |\n"
        f"| its runner processes | {shares[1]:.2f} % of a core |"
    )


def _cpu_seconds(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(each.user + each.system for each in times)
