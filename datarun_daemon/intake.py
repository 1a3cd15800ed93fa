"""The thread that watches the incoming folders and takes bundles out of them.

It finds and copies; the loop decides and writes the line; then this thread clears the incoming
folder. Events and glances only wake it: what it trusts is the inbox's own listing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datarun_daemon import disk
from datarun_daemon.core.errors import Problem
from datarun_daemon.core.model import BundleId, BundleKind
from datarun_daemon.spool import receipts
from datarun_daemon.spool.bundle import Bounds
from datarun_daemon.spool.findings import Cleared, Finding, Waiting
from datarun_daemon.spool.inbox import Inbox
from datarun_daemon.spool.layout import Spool
from datarun_daemon.spool.notices import Notice, Notices
from datarun_daemon.watch import Repaired, Watch
from datarun_daemon.worker import Worker

_TEND_SECONDS = 1.0
#: a receipt that the disk refused, most often because it is full, is written after this time
_RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Accept:
    """The bundle's line is durable: write its receipt and clear it from the incoming folder."""

    bundle: BundleId
    owner_uid: int
    at: str
    registered: Mapping[str, object]
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reject:
    """The rejection's line is durable: move the bundle into rejected/ and write its receipt."""

    bundle: BundleId
    owner_uid: int
    at: str
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class ReportRejected:
    """The receipt of a bundle that lies in ``folder`` of rejected/ now."""

    bundle: BundleId
    owner_uid: int
    at: str
    problems: tuple[Problem, ...]
    #: None: it changed or went before it could be moved
    folder: str | None


@dataclass(frozen=True, slots=True)
class ReportIncomplete:
    kind: BundleKind
    name: str
    owner_uid: int
    at: str
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Withdraw:
    """A bundle that was reported incomplete is gone, and so is its receipt."""

    kind: BundleKind
    name: str


@dataclass(frozen=True, slots=True)
class Amend:
    """More is known about an accepted bundle than its receipt said."""

    bundle: BundleId
    owner_uid: int
    at: str
    registered: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Configure:
    """The configuration was read again."""

    glance_seconds: float
    settle_seconds: float
    incomplete_after_seconds: float
    rescan_seconds: float
    bounds: Bounds


Task = Accept | Reject | ReportRejected | ReportIncomplete | Withdraw | Amend | Configure


@dataclass(frozen=True, slots=True)
class Found:
    """What one look brought."""

    findings: tuple[Finding, ...]
    #: tickets of bundles that are gone from the incoming folders
    cleared: tuple[int, ...]
    #: what lies there and is neither registered nor rejected, as of time.monotonic()
    waiting: tuple[Waiting, ...]
    notices: tuple[Notice, ...]
    repaired: tuple[Repaired, ...]


class Intake(Worker[Task]):
    """Owns the inbox and the watch."""

    def __init__(
        self,
        spool: Spool,
        inbox: Inbox,
        post: Callable[[object], None],
        *,
        make_watch: Callable[[Callable[[], None]], Watch],
        glance_seconds: float,
    ) -> None:
        """``make_watch`` makes a watch that calls what it is given whenever something may have changed."""
        super().__init__("intake", post)
        self._spool = spool
        self._inbox = inbox
        self.watch = make_watch(self.look_soon)
        self._glance_seconds = glance_seconds
        self._next_look = 0.0
        self._next_tend = 0.0
        self._waiting: tuple[Waiting, ...] = ()
        self._seen_wakes = 0
        #: tasks that the disk refused, with the time.monotonic() at which they are done again
        self._postponed: list[tuple[float, Task]] = []
        #: written, and not durable yet
        self._receipts: list[Path] = []
        #: registered bundles that are cleared away once their receipts are durable
        self._accepted: list[BundleId] = []
        self._notices = Notices()
        self._wakes = 0

    def look_soon(self) -> None:
        """Something may have changed; called by the watch's threads."""
        self._wakes += 1
        self.wake()

    def start(self) -> None:
        """What an earlier daemon left is cleaned away before the first look."""
        self._inbox.clean()
        self.watch.start()
        super().start()

    def stop(self) -> None:
        super().stop()
        self.watch.stop()

    def wait_seconds(self) -> float | None:
        until_look = max(0.0, self._next_look - time.monotonic())
        return min(self._glance_seconds, until_look)

    def work(self, tasks: Sequence[Task]) -> None:
        now = time.monotonic()
        glanced = self.watch.glance(now)
        wakes = self._wakes
        due = now >= min(self._next_look, self._next_tend)
        if not (tasks or glanced or due or self._postponed or wakes != self._seen_wakes):
            return  # as it is fifty times a second, most of the time
        again = [task for at, task in self._postponed if at <= now]
        self._postponed = [(at, task) for at, task in self._postponed if at > now]
        cleared: list[int] = []
        for task in (*again, *tasks):
            cleared += self._obey_or_postpone(task)
        cleared += self._clear()
        repaired: list[Repaired] = []
        if now >= self._next_tend:
            self._next_tend = now + _TEND_SECONDS
            repaired = self.watch.tend(now)
        findings: list[Finding] = []
        looked = False
        if glanced or wakes != self._seen_wakes or now >= self._next_look:
            self._seen_wakes = wakes
            looked = True
            findings = self._inbox.look(now)
            self._next_look = time.monotonic() + self._inbox.seconds_to_next(time.monotonic())
        if not (tasks or again or looked or repaired):
            return
        cleared += [finding.bundle.ticket for finding in findings if isinstance(finding, Cleared)]
        waiting = tuple(self._inbox.waiting())
        notices = (*self._notices.take(), *self._inbox.notices())
        if findings or cleared or notices or repaired or waiting != self._waiting:
            self._waiting = waiting
            self.post(Found(tuple(findings), tuple(cleared), waiting, notices, tuple(repaired)))

    def _clear(self) -> list[int]:
        """The receipts written before are durable, and then their bundles are cleared; returns the tickets of those."""
        if self._receipts:
            folders = {receipt.parent for receipt in self._receipts}
            disk.make_durable([*self._receipts, *folders], below=self._spool.root)
            self._receipts.clear()
        cleared = [bundle.ticket for bundle in self._accepted if self._inbox.finish(bundle)]
        self._accepted.clear()
        return cleared

    def _obey_or_postpone(self, task: Task) -> list[int]:
        try:
            return self._obey(task)
        except OSError as error:
            self._postponed.append((time.monotonic() + _RETRY_SECONDS, task))
            self._notices.tell("receipt_not_written_yet", reason=str(error), task=type(task).__name__)
            return []

    def _obey(self, task: Task) -> list[int]:
        """The task is done; returns tickets of bundles that it cleared from the incoming folders."""
        spool = self._spool
        match task:
            case Accept(bundle, owner, at, registered, ignored):
                receipt = receipts.write_accepted(
                    spool, bundle, at=at, owner_uid=owner, registered=registered, ignored=ignored
                )
                self._receipts.append(receipt)
                self._accepted.append(bundle)
            case Reject(bundle, owner, at, problems):
                folder = self._inbox.refuse(bundle, problems)
                self._obey_or_postpone(ReportRejected(bundle, owner, at, problems, folder))
                return [bundle.ticket]
            case ReportRejected(bundle, owner, at, problems, folder):
                receipt = receipts.write_rejected(
                    spool, bundle, at=at, owner_uid=owner, problems=problems, folder=folder
                )
                self._receipts.append(receipt)
            case ReportIncomplete(kind, name, owner, at, missing):
                receipts.write_incomplete(spool, kind, name, at=at, owner_uid=owner, missing=missing)
            case Withdraw(kind, name):
                receipts.remove_receipt(spool, kind, name)
            case Amend(bundle, owner, at, registered):
                receipts.write_accepted(spool, bundle, at=at, owner_uid=owner, registered=registered)
            case Configure(glance, settle, incomplete_after, rescan, bounds):
                self._glance_seconds = glance
                self._inbox.configure(
                    settle_seconds=settle,
                    incomplete_after_seconds=incomplete_after,
                    rescan_seconds=rescan,
                    bounds=bounds,
                )
        return []
