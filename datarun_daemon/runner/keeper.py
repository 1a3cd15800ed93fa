"""One dataset in use: holds its arrays, forks its folds, watches them, and sees to their results.

A keeper holds no labels: those of a fold's rows pass through it as a descriptor that it never reads. It
keeps nothing of a fold in memory but its job, for the next fold inherits what is there. It has one
thread, or its forks would hang. When the daemon is gone it finishes what runs, and ends.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from . import dataset_code, fold, mapped, processes, wire, writer
from .watched_fold import WatchedFold

_POLL_SECONDS = 0.25
_TELL_SECONDS = 1.0
#: between two looks at processes that were killed and are not gone yet
_SWEEP_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class _Spare:
    """A child that waits for a job."""

    pid: int
    pidfd: int
    link: socket.socket
    log: int


def main(link: socket.socket, folder: str, *, server: int, told: dict[str, Any], cores: int) -> NoReturn:
    """Serves a link to the daemon until it closes it and all folds have ended.

    Args:
        folder: the prepared dataset.
        told: goes into every result as it is.
        cores: threads that a fold's libraries may use.
    """
    processes.die_with_parent(server)
    processes.adopt_orphans()
    processes.set_name("datarun-keeper")
    processes.keep_only([0, 1, 2, link.fileno()])
    try:
        dataset = _load(Path(folder))
    except Exception as error:
        wire.send(link, {"op": "unloadable", "reason": f"{type(error).__name__}: {error}"})
        os._exit(0)
    gc.collect()
    gc.freeze()
    with contextlib.suppress(OSError):  # the daemon is gone already; what it asked for before is still done
        wire.send(link, {"op": "loaded"})
    _Keeper(link, dataset, told=told, cores=cores).serve()
    os._exit(0)


def _load(folder: Path) -> fold.Dataset:
    """What a dataset's own code had a hand in stays sealed: opening it may run that code, which only folds may."""
    meta = json.loads((folder / "meta.json").read_bytes())
    if meta["format"] != "standard":
        X_test = mapped.Sealed(folder / "X_test") if meta["test_set"] else None
        return fold.Dataset(mapped.Sealed(folder / "X_train"), X_test, meta, str(folder / dataset_code.CODE))
    return fold.Dataset(mapped.load(folder / "X_train"), mapped.load(folder / "X_test"), meta)


class _Keeper:
    def __init__(self, link: socket.socket, dataset: fold.Dataset, *, told: dict[str, Any], cores: int) -> None:
        self._link = link
        self._link.setblocking(False)
        self._dataset = dataset
        self._told = told
        self._cores = cores
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._folds: dict[tuple[str, int], WatchedFold] = {}
        self._spare: _Spare | None = None
        self._spare_is_warm = False
        self._writer_pid, self._writer_link = self._start_writer()
        #: handed to the writer and not answered yet
        self._written_next: list[tuple[str, int]] = []
        self._daemon_is_there = True
        self._closing = False
        self._next_poll = self._next_tell = 0.0
        self._watch(link.fileno(), self._hear_daemon)

    def serve(self) -> None:
        self._fork_spare()
        while self._folds or not (self._closing or not self._daemon_is_there):
            for descriptor, _ in self._epoll.poll(self._patience()):
                handler = self._handlers.get(descriptor)
                if handler is not None:
                    handler()
            self._look_around(time.monotonic())

    def _hear_daemon(self) -> None:
        try:
            message, descriptors = wire.receive_with_descriptors(self._link)
        except BlockingIOError:
            return
        if message is None:
            self._forget(self._link.fileno())
            self._daemon_is_there = False
            return
        match message["op"]:
            case "run":
                self._run(message, descriptors)
            case "stop":
                running = self._folds.get((message["fold"], message["attempt"]))
                if running is not None:
                    self._end(running, message["reason"], state="CANCELLED")
            case "close":
                self._closing = True

    def _run(self, job: dict[str, Any], descriptors: list[int]) -> None:
        rows, lock = descriptors
        folder = job["run_folder"]
        os.mkdir(f"{folder}/scratch", 0o700)
        order = {
            "scratch": f"{folder}/scratch",
            "submission": job["submission_folder"],
            "elements": job["elements"],
            "limits": job["limits"],
            "rows": job["rows"],
        }
        spare = self._take_spare()
        running = WatchedFold(
            job, pid=spare.pid, pidfd=spare.pidfd, link=spare.link, log=spare.log, lock=lock,
            tests=self._dataset.meta["test_set"],
        )  # fmt: skip
        with contextlib.suppress(OSError):  # it has ended while it waited: its end is seen, and told, like any other
            wire.send(spare.link, order, [rows])
        os.close(rows)
        self._folds[running.key] = running
        self._forget(spare.pidfd)
        self._watch(running.link.fileno(), partial(self._hear_fold, running))
        self._watch(running.log, partial(self._take_log, running))
        self._watch(running.pidfd, partial(self._bury, running))
        self._fork_spare()

    def _take_spare(self) -> _Spare:
        if self._spare is None:
            self._fork_spare()
        spare, self._spare = self._spare, None
        assert spare is not None
        return spare

    def _fork_spare(self) -> None:
        """A child is ready, or getting ready, for the next fold."""
        ours, theirs = wire.pair()
        log_out, log_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(log_in, True)
        me = os.getpid()
        pid = os.fork()
        if pid == 0:
            processes.live(lambda: fold.main(self._dataset, link=theirs, log=log_in, keeper=me, cores=self._cores))
        theirs.close()
        os.close(log_in)
        ours.setblocking(False)
        self._spare_is_warm = False
        self._spare = _Spare(pid, os.pidfd_open(pid), ours, log_out)
        self._watch(self._spare.pidfd, self._lose_spare)
        self._warm_spare()

    def _warm_spare(self) -> None:
        """With nothing else to do, the spare child touches its pages ahead; while folds run it would take from them."""
        if self._spare is not None and not self._folds and not self._spare_is_warm:
            self._spare_is_warm = True
            with contextlib.suppress(OSError):  # it has ended: seen by its pidfd
                wire.send(self._spare.link, {"warm": True})

    def _lose_spare(self) -> None:
        spare, self._spare = self._spare, None
        if spare is None:
            return
        self._forget(spare.pidfd)
        os.waitpid(spare.pid, 0)
        spare.link.close()
        os.close(spare.log)
        os.close(spare.pidfd)

    def _hear_fold(self, running: WatchedFold) -> None:
        try:
            word = running.word()
        except BlockingIOError:
            return
        if word is None:
            self._forget(running.link.fileno())  # its end is seen by its pidfd
        elif running.outcome is not None:
            return
        elif word == running.phase.encode():
            self._phase_ended(running)
        elif word == fold.FAILED:
            running.phase_ended()
            self._end(running, None)
        else:
            self._end(running, f"The fold said {word!r} in its {running.phase} phase, which is nothing a fold says")

    def _phase_ended(self, running: WatchedFold) -> None:
        phase = running.phase
        took = running.phase_ended()
        if phase == running.phases[-1]:
            running.phases_done.append(phase)
            running.succeed()
            running.kill()
            self._tell_ended(running)
            return
        fold_id, attempt = running.key
        self._tell({"op": "phase", "fold": fold_id, "attempt": attempt, "phase": phase, **took})
        running.next_phase()
        with contextlib.suppress(OSError):  # it has ended: seen by its pidfd
            wire.send(running.link, {})

    def _tell_ended(self, running: WatchedFold) -> None:
        """It computes no more: another fold may have its slot while this one is cleared up and written."""
        fold_id, attempt = running.key
        if not running.told_ended:
            running.told_ended = True
            self._tell({"op": "ended", "fold": fold_id, "attempt": attempt})

    def _take_log(self, running: WatchedFold) -> None:
        with contextlib.suppress(BlockingIOError):
            if not running.log_ring.take(running.log):
                self._forget(running.log)

    def _end(self, running: WatchedFold, message: str | None, *, state: str = "ERROR") -> None:
        running.fail(message, state=state)
        running.kill()

    def _bury(self, running: WatchedFold) -> None:
        """The fold's process has ended."""
        if running.reap():
            self._forget(running.pidfd)
            running.kill()
            self._tell_ended(running)
            self._clear_up(running)

    def _clear_up(self, running: WatchedFold) -> None:
        """Once nothing of the fold's tree is left, its result is written."""
        if not processes.end_strays(self._known_pids()):
            return  # looked at again soon
        with contextlib.suppress(BlockingIOError):
            while running.log_ring.take(running.log):
                pass
        running.log_ring.close()
        for descriptor in (running.log, running.link.fileno()):
            self._forget(descriptor)
        assert running.outcome is not None
        outcome = {
            **running.outcome,
            "phases_done": running.phases_done,
            "measured": running.measured,
            "printed": {"taken_bytes": running.log_ring.taken_bytes, "lost_bytes": running.log_ring.lost_bytes},
        }
        job = running.job
        told = {key: job[key] for key in ("fold", "attempt", "elements")} | self._told
        order = {"run_folder": job["run_folder"], "limits": job["limits"], "meta": self._dataset.meta, "told": told}
        self._written_next.append(running.key)
        with contextlib.suppress(OSError):  # the writer has ended: seen by its link
            wire.send(self._writer_link, {"key": running.key, "job": order, "outcome": outcome})

    def _known_pids(self) -> set[int]:
        known = {running.pid for running in self._folds.values() if not running.reaped}
        known.add(self._writer_pid)
        if self._spare is not None:
            known.add(self._spare.pid)
        return known

    def _start_writer(self) -> tuple[int, socket.socket]:
        ours, theirs = wire.pair()
        me = os.getpid()
        pid = os.fork()
        if pid == 0:
            processes.live(lambda: writer.main(theirs, keeper=me))
        theirs.close()
        self._watch(ours.fileno(), self._hear_writer)
        return pid, ours

    def _hear_writer(self) -> None:
        answer = wire.receive(self._writer_link)
        if answer is None:
            self._lose_writer()
            return
        self._written_next.remove(tuple(answer["key"]))
        self._close_fold(tuple(answer["key"]), answer["error"])

    def _lose_writer(self) -> None:
        self._forget(self._writer_link.fileno())
        self._writer_link.close()
        _, status = os.waitpid(self._writer_pid, 0)
        lost, self._written_next = self._written_next, []
        self._writer_pid, self._writer_link = self._start_writer()
        for key in lost:
            code = os.waitstatus_to_exitcode(status)
            self._close_fold(key, f"the process that writes results ended with status {code}")

    def _close_fold(self, key: tuple[str, int], error: str | None) -> None:
        self._folds.pop(key).close()
        fold_id, attempt = key
        if error is None:
            self._tell({"op": "finished", "fold": fold_id, "attempt": attempt})
        else:
            self._tell({"op": "vanished", "fold": fold_id, "attempt": attempt, "reason": error})
        self._warm_spare()

    def _patience(self) -> float:
        if any(running.reaped and running.key not in self._written_next for running in self._folds.values()):
            return _SWEEP_SECONDS
        return _POLL_SECONDS if self._folds else -1

    def _look_around(self, now: float) -> None:
        for running in list(self._folds.values()):
            if running.reaped and running.key not in self._written_next:
                self._clear_up(running)
            elif now >= running.hard_deadline and running.outcome is None:
                seconds = running.limits["wall_hard_seconds"]
                self._end(running, f"Hard Time Limit Exceeded ({seconds:g} s)")
        if now >= self._next_poll:
            self._next_poll = now + _POLL_SECONDS
            self._poll_usage()
        if now >= self._next_tell and self._folds:
            self._next_tell = now + _TELL_SECONDS
            usage = [[*key, running.memory_bytes] for key, running in self._folds.items()]
            self._tell({"op": "usage", "folds": usage})
            self._heed_stop_files()

    def _poll_usage(self) -> None:
        for running in self._folds.values():
            if running.outcome is None:
                excess = running.exceeded()
                if excess is not None:
                    self._end(running, excess)

    def _heed_stop_files(self) -> None:
        """How a daemon that did not start us ends a fold."""
        for running in self._folds.values():
            with contextlib.suppress(OSError):
                descriptor = os.open(f"{running.folder}/stop", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                with open(descriptor, "rb") as file:
                    reason = (file.read(2000) or b"").decode(errors="replace")
                self._end(running, reason.strip() or "stopped", state="CANCELLED")

    def _tell(self, message: dict[str, Any]) -> None:
        if not self._daemon_is_there:
            return
        with contextlib.suppress(OSError):  # gone, or so slow that its buffer is full: the result is on disk
            wire.send(self._link, message)

    def _watch(self, descriptor: int, handler: Callable[[], None]) -> None:
        self._epoll.register(descriptor, select.EPOLLIN)
        self._handlers[descriptor] = handler

    def _forget(self, descriptor: int) -> None:
        if self._handlers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)


def ignore_signals() -> None:
    """What a terminal or an administrator sends to end the daemon does not end its folds."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
