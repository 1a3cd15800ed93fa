"""What the files of ``status/`` cost a daemon that knows many folds: a ledger of folds, and nothing else around it."""

from __future__ import annotations

import functools
import itertools
import random
import time
from array import array
from collections.abc import Callable
from pathlib import Path

from datarun_daemon.core import events as e
from datarun_daemon.core.ledger import Ledger
from datarun_daemon.core.model import BundleId, BundleKind, Priority, Split
from datarun_daemon.core.scheduler import Policy
from datarun_daemon.registrar import waits_for
from datarun_daemon.spool.indices import FoldPart, IndexValues, pack_indices
from datarun_daemon.spool.layout import Spool
from datarun_daemon.status_views import StatusViews
from datarun_daemon.view_writer import Report
from datarun_daemon.wakeups import Wakeups

_FOLDS_A_SUBMISSION = 10
_STATUS_SECONDS = 2.0
_POLICY = Policy(2, dict.fromkeys(Priority, 2), dict.fromkeys(Priority, 1 << 30), 4 << 30)


class _Loop:
    """A ledger and the views of it, and how long the loop's thread worked for these."""

    def __init__(self, folder: Path, n_folds: int, owners: int) -> None:
        self.spool = Spool.create(folder)
        self.ledger = Ledger()
        self.wakeups = Wakeups()
        self.cpu_seconds = self.longest_seconds = 0.0
        packed = pack_indices(_rows(), folder, folder / "store" / "indices.npy")[0]
        self._apply(
            e.DatasetAccepted(
                BundleId(BundleKind.DATASETS, "d", 1, ""), "d", 1, 0, "0" * 64, "store/d", "y", ("classifier",), "d.csv"
            )
        )
        for number in range(n_folds // _FOLDS_A_SUBMISSION):
            name = f"team_{number}"
            rows = tuple(
                e.FoldRow(f"{name}-{k}", Priority.LOW, packed.offset, packed.n_train, packed.n_test, packed.max_index)
                for k in range(_FOLDS_A_SUBMISSION)
            )
            bundle = BundleId(BundleKind.FOLDS, name, number + 2, "")
            self._apply(
                e.FoldsAccepted(
                    bundle, 1000 + number % owners, name, "d", "store/f", ("classifier.py",), "0" * 64,
                    "store/indices.npy", rows, Priority.LOW,
                )
            )  # fmt: skip
        self._apply(e.DatasetSplit("d", Split(0.2), 120, 30, "prepared"))

    def start(self) -> None:
        self.views = StatusViews(self.spool, self.ledger, waits_for, self.wakeups.post)
        if self.views.recall():
            self.ledger.touched.clear()  # as a replay does, when it reaches that line
        self.views.start()

    def start_again(self) -> None:
        self.start()
        self.turn_until_shown()

    def stop(self) -> None:
        self.views.stop(now=time.time(), policy=_POLICY)
        self.wakeups.take()

    def _apply(self, fact: e.Event) -> None:
        self.ledger.apply(fact, sequence=self.ledger.sequence + 1, at=float(self.ledger.sequence + 1))

    def turn(self) -> None:
        cpu, clock = time.thread_time(), time.perf_counter()
        for report in self.wakeups.take():
            assert isinstance(report, Report)
            self.views.take(report)
        self.views.look(now=time.time(), policy=_POLICY, every_seconds=_STATUS_SECONDS)
        self.cpu_seconds += time.thread_time() - cpu
        self.longest_seconds = max(self.longest_seconds, time.perf_counter() - clock)

    def turn_until_shown(self) -> None:
        while self.views.sequence < self.ledger.sequence:
            self.turn()
            time.sleep(0.001)

    def turn_for(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self.turn()
            time.sleep(0.1)

    def run_folds(self, *, seconds: float, folds_a_second: float) -> None:
        """Folds from all over the ledger start, end and are published, some each second."""
        order = list(self.ledger.waiting[Priority.LOW].values())
        random.Random(0).shuffle(order)
        began = time.monotonic()
        for number in itertools.count():
            while time.monotonic() < began + number / folds_a_second:
                self.turn()
                time.sleep(0.005)
            if time.monotonic() - began >= seconds:
                return
            fold = order[number % len(order)].head().id
            for fact in (e.FoldStarted(fold, 1), e.FoldTested(fold, 1, 0.1, 0.1, 0.1), e.FoldPublished(fold, 1)):
                self._apply(fact)


def measure(*, folds: int, seconds: float, folder: Path) -> str:
    lines = [
        f"| status/ with {folds} folds | seconds | CPU of the loop's thread, ms a second | longest turn, ms "
        "| CPU of the process, ms a second | written, MB a second |",
        "|---|---|---|---|---|---|",
    ]
    loop = _Loop(folder / "spool", folds, owners=5)
    loop.start()
    lines.append(_row("everything, for the first time", loop, loop.turn_until_shown))
    busy = functools.partial(loop.run_folds, seconds=seconds, folds_a_second=10)
    lines.append(_row("10 folds a second run", loop, busy))
    loop.turn_until_shown()
    lines.append(_row("nothing happens", loop, functools.partial(loop.turn_for, seconds)))
    loop.stop()
    lines.append(_row("the next start", loop, loop.start_again))
    loop.stop()
    return "\n".join(lines)


def _row(title: str, loop: _Loop, act: Callable[[], None]) -> str:
    loop.cpu_seconds = loop.longest_seconds = 0.0
    cpu, written, clock = time.process_time(), _written_bytes(), time.perf_counter()
    act()
    seconds = time.perf_counter() - clock
    total = time.process_time() - cpu
    return (
        f"| {title} | {seconds:.1f} | {1000 * loop.cpu_seconds / seconds:.1f} | {1000 * loop.longest_seconds:.1f} "
        f"| {1000 * total / seconds:.1f} | {(_written_bytes() - written) / 1e6 / seconds:.2f} |"
    )


def _written_bytes() -> int:
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["wchar"])


def _rows() -> list[FoldPart]:
    train, test = IndexValues(array("q", range(96))), IndexValues(array("q", range(96, 120)))
    return [FoldPart("1", train, test, Priority.LOW)]
