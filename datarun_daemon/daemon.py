"""The daemon: one loop that looks, remembers, decides and acts; it alone writes the catalog."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType

import structlog

from datarun_daemon import __version__, disk
from datarun_daemon.accounts import Accounts
from datarun_daemon.acting import Acting
from datarun_daemon.books import Books
from datarun_daemon.config import Config, load_config
from datarun_daemon.core import events as e
from datarun_daemon.core.errors import ConfigError, DatarunError, SpoolBusy
from datarun_daemon.core.model import Priority
from datarun_daemon.core.scheduler import Capacity, Policy, plan
from datarun_daemon.intake import Configure, Intake
from datarun_daemon.librarian import Librarian, LookForTaken
from datarun_daemon.log import set_up
from datarun_daemon.looking import Looking
from datarun_daemon.machine import this_machine
from datarun_daemon.registrar import waits_for
from datarun_daemon.runner.pool import Pool
from datarun_daemon.spool import views
from datarun_daemon.spool.bundle import Bounds
from datarun_daemon.spool.deliveries import Deliveries
from datarun_daemon.spool.findings import Unfinished
from datarun_daemon.spool.inbox import Inbox
from datarun_daemon.spool.layout import Spool
from datarun_daemon.spool.outbox import Outbox
from datarun_daemon.start import clean_runs, settle_attempts, settle_outbox
from datarun_daemon.status_views import StatusViews
from datarun_daemon.systemd_notify import Notifier, keep_capabilities_to_ourselves
from datarun_daemon.view_writer import Lost, NotWritten, Report, Shown, Written
from datarun_daemon.wakeups import Wakeups
from datarun_daemon.watch import Watch
from datarun_daemon.worker import WorkerFailed

log = structlog.get_logger()

_TURN_SECONDS = 1.0


def run(config: Config) -> int:
    """Serve the spool until SIGTERM or SIGINT; returns the exit status.

    Raises:
        DatarunError: it could not start, or cannot go on.
    """
    set_up(config.log.format, config.log.level)
    notifier = Notifier.from_environment(os.environ)
    keep_capabilities_to_ourselves()
    spool = Spool.open(config.spool)
    with _hold(spool):
        daemon = Daemon(config, spool, notifier)
        try:
            daemon.start()
            daemon.serve()
        finally:
            daemon.stop()
    return 0


class Daemon:
    def __init__(self, config: Config, spool: Spool, notifier: Notifier) -> None:
        self._config = config
        self._spool = spool
        self._notifier = notifier
        self._wakeups = Wakeups()
        self._books = Books(spool)
        self._outbox = Outbox(spool)
        self._deliveries = Deliveries(spool, self._outbox)
        self._librarian = Librarian(self._outbox, self._deliveries, self._wakeups.post)
        self._pool = Pool(
            environments=config.interpreters(),
            cores_per_slot=config.cores_per_slot,
            max_loaded_datasets=config.max_loaded_datasets,
        )
        self._policy = _policy(config)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wakeups.fileno(), selectors.EVENT_READ)
        self._selector.register(self._pool.fileno(), selectors.EVENT_READ)
        self._stop_signal = 0
        self._started_at = time.time()
        self._next_taken_look = 0.0
        self._status = StatusViews(spool, self._books.ledger, waits_for, self._wakeups.post)
        self._next_view = 0.0
        #: what the overview shows: number of changes, and the line up to which the other files of status/ are current
        self._viewed = (-1, -1)

    def start(self) -> None:
        """The past is taken in: catalog, outbox, attempts that outlived us; then the intake starts."""
        lines = self._books.replay(shown=self._status.recall())
        settle_outbox(self._books, self._outbox, self._deliveries)
        self._intake = self._make_intake()
        accounts = Accounts.named(self._config.shared_accounts)
        self._looking = Looking(self._books, self._intake, self._librarian, self._config.max_attempts, accounts)
        self._looking.last_ended.extend(views.last_ended(self._books.ledger.folds.values(), 20))
        self._acting = Acting(
            self._books, self._pool, self._librarian, self._outbox, self._deliveries, self._config
        )
        self._books.note(e.DaemonStarted(__version__, socket.gethostname()))
        settle_attempts(self._books, self._pool, self._looking, self._outbox)
        clean_runs(self._books, self._librarian)
        self._books.commit()
        self._take_signals()
        self._librarian.start()
        self._status.start()
        self._intake.start()
        self._notifier.ready(f"{len(self._books.ledger.folds)} folds known")
        file_system = disk.file_system(self._spool.root)
        log.info(
            "daemon_started", version=__version__, spool=str(self._spool.root), slots=self._policy.slots,
            file_system=file_system.kind, watch=self._intake.watch.mode, watch_reason=self._intake.watch.reason,
            catalog_lines=lines,
        )  # fmt: skip

    def serve(self) -> None:
        """Turns of the loop until a signal says stop."""
        while not self._stop_signal:
            self._turn()

    def stop(self) -> None:
        """What runs is left to run, or ended, as ``on_stop`` says; what was accepted stays accepted."""
        self._notifier.stopping()
        if hasattr(self, "_acting"):
            self._wind_down()
        self._pool.close()
        self._books.close()
        log.info("daemon_stopped", left_running=len(self._pool.running), signal=int(self._stop_signal))

    def _turn(self) -> None:
        self._selector.select(self._wait_seconds())
        for value in self._wakeups.take():
            self._take(value)
        for report in self._pool.look():
            self._looking.take(report)
        self._looking.give_postponed_again()
        self._acting.publish(self._books.commit())
        decisions = plan(self._books.ledger, time.time(), policy=self._policy, capacity=self._capacity())
        self._acting.carry_out(decisions)
        self._look_for_taken()
        self._status.look(now=time.time(), policy=self._policy, every_seconds=self._config.status_seconds)
        self._view()
        self._notifier.alive()

    def _take(self, value: object) -> None:
        match value:
            case signal.Signals.SIGHUP:
                self._reload()
            case signal.Signals():
                self._stop_signal = value
            case WorkerFailed(name, error):
                if isinstance(error, DatarunError):
                    raise error
                raise RuntimeError(f"the {name} thread failed: {error!r}") from error
            case Shown() | Written() | Lost() | NotWritten():
                self._status.take(value)
            case _:
                self._looking.take(value)

    def _capacity(self) -> Capacity:
        running = dict.fromkeys(Priority, 0)
        for run in self._pool.running.values():
            running[self._books.ledger.folds[run.fold].priority] += not run.closing
        return Capacity(
            running,
            self._pool.loaded_datasets,
            accepting=time.monotonic() >= self._acting.paused_until,
            underway=frozenset(self._books.underway),
        )

    def _wait_seconds(self) -> float:
        limits = [_TURN_SECONDS]
        if self._notifier.watchdog_seconds:
            limits.append(self._notifier.watchdog_seconds)
        if self._viewed != (self._books.changes, self._status.sequence):
            limits.append(max(0.0, self._next_view - time.monotonic()))
        if (seconds := self._status.wait_seconds()) is not None:
            limits.append(seconds)
        return min(limits)

    def _look_for_taken(self) -> None:
        now = time.monotonic()
        if now < self._next_taken_look or not self._books.ledger.new:
            return
        # a look costs some microseconds a result, so many results are looked at less often
        self._next_taken_look = now + max(self._config.intake.scan_seconds, len(self._books.ledger.new) / 5000)
        places = tuple(self._books.place(fold) for fold in self._books.ledger.new.values())
        self._librarian.give(LookForTaken(places))

    def _view(self) -> None:
        now = time.monotonic()
        seen = (self._books.changes, self._status.sequence)
        if now < self._next_view or not (seen != self._viewed or self._pool.running):
            return
        self._next_view = now + self._config.status_seconds
        self._viewed = seen
        try:
            views.write_overview(self._spool, views.overview(self._books.ledger, self._scene(), waits_for))
        except OSError as error:
            log.warning("status_not_written", reason=str(error))

    def _scene(self) -> views.Scene:
        now, ticks = time.time(), time.monotonic()
        return views.Scene(
            now=now,
            daemon={
                "version": __version__,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "started_at": views.iso(self._started_at),
                "status_seconds": self._config.status_seconds,
                "isolation": self._config.isolation,
            },
            policy=self._policy,
            cores_per_slot=self._config.cores_per_slot,
            running=tuple(
                views.Running(
                    run.fold, run.attempt, run.phase.value, ticks - run.started_monotonic, run.memory_bytes, run.adopted
                )
                for run in self._pool.running.values()
            ),
            loaded_datasets=self._pool.loaded_datasets,
            arriving=tuple(
                (waiting.kind.value, waiting.name, ticks - waiting.since, waiting.waits_for)
                for waiting in self._looking.arriving
            ),
            last_ended=tuple(self._looking.last_ended),
            last_rejected=tuple(self._looking.last_rejected),
            sequence=self._status.sequence,
        )

    def _make_intake(self) -> Intake:
        settings = _intake_settings(self._config)
        inbox = Inbox(
            self._spool,
            next_ticket=self._books.ledger.next_ticket,
            settle_seconds=settings.settle_seconds,
            incomplete_after_seconds=settings.incomplete_after_seconds,
            rescan_seconds=settings.rescan_seconds,
            bounds=settings.bounds,
            unfinished=[
                Unfinished(left.bundle, left.rejected.problems if left.rejected else None)
                for left in self._books.ledger.unfinished.values()
            ],
        )
        return Intake(
            self._spool,
            inbox,
            self._wakeups.post,
            make_watch=lambda wake: Watch(
                self._spool.incoming_folders(),
                wake,
                self._config.intake.watch,
                poll_seconds=self._config.intake.poll_seconds,
            ),
            glance_seconds=settings.glance_seconds,
        )

    def _take_signals(self) -> None:
        def enqueue(number: int, _frame: FrameType | None) -> None:
            self._wakeups.post(signal.Signals(number))

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, enqueue)

    def _reload(self) -> None:
        self._notifier.reloading()
        try:
            reload = self._config.reload_from(load_config(self._config.source, self._config.overrides))
        except ConfigError as error:
            log.error("configuration_not_reloaded", reason=str(error))
        else:
            self._config = self._acting.config = reload.config
            self._policy = _policy(self._config)
            self._looking.max_attempts = self._config.max_attempts
            self._looking.accounts = Accounts.named(self._config.shared_accounts)
            self._intake.give(_intake_settings(self._config))
            set_up(self._config.log.format, self._config.log.level)
            log.info(
                "configuration_reloaded", changed=list(reload.changed), needs_restart=list(reload.needs_restart)
            )
        self._notifier.ready()

    def _wind_down(self) -> None:
        """The workers finish what they were given, and its lines are written."""
        if self._config.on_stop == "end":
            self._end_running()
        self._intake.stop()
        self._librarian.stop()
        for value in self._wakeups.take():
            if isinstance(value, WorkerFailed):
                log.error("worker_failed", worker=value.name, reason=repr(value.error))
            elif isinstance(value, Report):
                self._status.take(value)
            elif not isinstance(value, signal.Signals):
                self._looking.take(value)
        self._acting.publish(self._books.commit())
        self._status.stop(now=time.time(), policy=self._policy)
        for value in self._wakeups.take():
            if isinstance(value, Report):
                self._status.take(value)
        self._viewed, self._next_view = (-1, -1), 0.0
        self._view()

    def _end_running(self) -> None:
        for fold_id, attempt in list(self._pool.running):
            self._pool.stop(fold_id, attempt, reason="the daemon was stopped")
        deadline = time.monotonic() + 10
        while self._pool.running and time.monotonic() < deadline:
            self._selector.select(0.1)
            for report in self._pool.look():
                self._looking.take(report)
        self._books.commit()


def _policy(config: Config) -> Policy:
    capacity = config.capacity(this_machine())
    return Policy(
        slots=capacity.slots,
        slots_of=capacity.slots_by_priority,
        memory_bytes_of={priority: config.fold_limits(priority)["memory_bytes"] for priority in Priority},
        memory_budget_bytes=capacity.memory_budget_bytes,
        max_attempts=config.max_attempts,
        high_in_a_row=config.scheduling.high_in_a_row,
        low_patience_seconds=config.scheduling.low_patience_seconds,
        affinity_window=config.scheduling.affinity_window,
        affinity_skips=config.scheduling.affinity_skips,
    )


def _intake_settings(config: Config) -> Configure:
    intake = config.intake
    return Configure(
        glance_seconds=intake.glance_seconds,
        settle_seconds=intake.settle_seconds,
        incomplete_after_seconds=intake.incomplete_after_seconds,
        rescan_seconds=intake.scan_seconds,
        bounds=Bounds(intake.max_bundle_bytes, intake.max_bundle_files, intake.max_copy_seconds),
    )


@contextmanager
def _hold(spool: Spool) -> Iterator[None]:
    """The spool is ours.

    Raises:
        SpoolBusy: another daemon has it; the message names it.
    """
    held = disk.lock(spool.lock_file)
    for _ in range(5):
        if held is not None:
            break
        # somebody may just be asking whether it is held, which takes it for a moment
        time.sleep(0.05)
        held = disk.lock(spool.lock_file)
    if held is None:
        other = spool.lock_file.read_text(errors="replace").strip()[:200] or "it has not said who it is"
        raise SpoolBusy(f"another daemon serves {spool.root}: {other}")
    try:
        started = datetime.now(UTC).isoformat(timespec="seconds")
        os.ftruncate(held, 0)
        os.pwrite(held, f"pid {os.getpid()} on {socket.gethostname()}, since {started}\n".encode(), 0)
        yield
    finally:
        os.close(held)
