"""The daemon's view of everything that runs: starts folds and tasks, and reports what became of them.

Lives in the daemon's loop thread. Nothing blocks; look() tells what has happened, and the descriptor of
fileno() becomes readable when that is worth a call. Folds that no link reaches, and servers that wait to
be started again, have no descriptor: call look() at least each second.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from datarun_daemon import disk

from . import adoption, wire
from .labels import LabelRows
from .links import Link
from .protocol import (
    Adoption,
    DatasetLoaded,
    DatasetUnloadable,
    FoldFinished,
    FoldJob,
    FoldsGenerated,
    FoldsNotGenerated,
    FoldVanished,
    GeneratedFold,
    Limits,
    Phase,
    PhaseEnded,
    Prepared,
    PrepareFailed,
    PrepareTask,
    Report,
    RunningFold,
    ServerDied,
    ServerReady,
    Task,
)
from .servers import Server

_ADOPTED_EVERY_SECONDS = 0.2
_NEXT_PHASE = {Phase.TRAIN: Phase.VALIDATION, Phase.VALIDATION: Phase.TEST}
__all__ = ["Limits", "Pool"]

Key = tuple[str, int]


@dataclass(slots=True, eq=False)
class _Keeper:
    """One dataset's keeper process, reached by its link."""

    dataset: str
    environment: str
    link: Link
    labels: LabelRows
    loaded: bool = False
    last_used: float = 0.0
    folds: set[Key] = field(default_factory=set)
    #: why its folds are lost, if it said so itself
    reason: str = "the process that holds the dataset ended"


@dataclass(slots=True, eq=False)
class _Helper:
    """A child that does one task and ends."""

    task: Task
    link: Link
    folds: list[GeneratedFold] = field(default_factory=list)
    answered: bool = False


class Pool:
    """Servers, keepers and folds, by their links."""

    def __init__(
        self, *, environments: Mapping[str, str], cores_per_slot: int = 1, max_loaded_datasets: int = 4
    ) -> None:
        """Starts a server for each environment (name → path of its interpreter); work may be handed over at once."""
        self._cores_per_slot = cores_per_slot
        self._max_loaded_datasets = max_loaded_datasets
        self._epoll = select.epoll()
        self._owners: dict[int, Server | _Keeper | _Helper] = {}
        self._servers = {name: Server(name, python) for name, python in environments.items()}
        self._keepers: dict[tuple[str, str], _Keeper] = {}
        self._running: dict[Key, RunningFold] = {}
        #: folds that no link reaches, and what is told of those that end without a result
        self._adopted: dict[Key, str] = {}
        self._look_at_adopted_at = 0.0
        self._reports: list[Report] = []
        for server in self._servers.values():
            self._start_server(server)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def look(self) -> list[Report]:
        """All that has happened since the last look, in order."""
        for descriptor, _ in self._epoll.poll(0):
            match self._owners.get(descriptor):
                case Server() as server:
                    self._hear_server(server)
                case _Keeper() as keeper:
                    self._hear_keeper(keeper)
                case _Helper() as helper:
                    self._hear_helper(helper)
        for owner in list(self._owners.values()):
            if owner.link is not None and owner.link.full:
                owner.link.flush()
        now = time.monotonic()
        for server in self._servers.values():
            if server.pid is None and now >= server.retry_at:
                self._start_server(server)
        if self._adopted and now >= self._look_at_adopted_at:
            self._look_at_adopted_at = now + _ADOPTED_EVERY_SECONDS
            self._look_at_adopted()
        reports, self._reports = self._reports, []
        return reports

    def start(self, job: FoldJob) -> None:
        """The fold is on its way; it ends with a FoldFinished or FoldVanished.

        Raises OSError, ValueError, IndexError, wire.TooLong: the run folder or the rows can't be made (a full
        disk, no prepared dataset, a row outside of it); nothing was started.
        """
        keeper = self._keeper(job)
        job.run_folder.mkdir(parents=True, exist_ok=True)
        (job.run_folder / "facts.json").write_bytes(wire.encode_any(job.facts))
        message = {
            "op": "run",
            "fold": job.fold,
            "attempt": job.attempt,
            "run_folder": str(job.run_folder),
            "submission_folder": str(job.submission_folder),
            "elements": job.elements,
            "limits": asdict(job.limits),
            "rows": [len(job.train_is), len(job.test_is)],
        }
        rows = keeper.labels.file_for(job.train_is, job.test_is)
        lock = disk.lock(job.run_folder / "lock")
        if lock is None:
            os.close(rows)
            raise BlockingIOError(f"{job.run_folder} is in use by another attempt")
        key = (job.fold, job.attempt)
        now = time.monotonic()
        keeper.link.send(message, [rows, lock])
        keeper.folds.add(key)
        keeper.last_used = now
        self._running[key] = RunningFold(
            job.fold, job.attempt, job.dataset, job.run_folder, Phase.TRAIN, now, memory_bytes=0, adopted=False
        )

    def stop(self, fold: str, attempt: int, *, reason: str) -> None:
        """It ends as cancelled soon, which a FoldFinished tells; one that does not run any more is left alone."""
        key = (fold, attempt)
        running = self._running.get(key)
        if running is None:
            return
        if key in self._adopted:
            adoption.ask_to_stop(running.run_folder, reason=reason)
            return
        for owner in self._owners.values():
            if isinstance(owner, _Keeper) and key in owner.folds:
                owner.link.send({"op": "stop", "fold": fold, "attempt": attempt, "reason": reason[:2000]})

    def prepare(self, task: Task) -> None:
        """Ends with Prepared or PrepareFailed, FoldsGenerated or FoldsNotGenerated."""
        ours, theirs = wire.pair()
        told = {"kind": "prepare" if isinstance(task, PrepareTask) else "generate", **asdict(task)}
        told = {name: str(value) if isinstance(value, Path) else value for name, value in told.items()}
        helper = _Helper(task, Link(ours))
        self._own(helper.link, helper)
        self._servers[task.environment].ask({"op": "prepare", "task": told}, [theirs.detach()])

    def adopt(self, run_folder: Path, *, fold: str, attempt: int, dataset: str) -> Adoption:
        """What became of an attempt that an earlier daemon started; one that is alive is reported like our own."""
        found = adoption.look_at(run_folder)
        if found is Adoption.ALIVE:
            key = (fold, attempt)
            self._adopted[key] = "the process that ran it ended without a result"
            self._running[key] = RunningFold(
                fold, attempt, dataset, run_folder, Phase.TRAIN, time.monotonic(), memory_bytes=0, adopted=True
            )
        return found

    @property
    def loaded_datasets(self) -> frozenset[str]:
        """Those that a keeper holds ready."""
        return frozenset(keeper.dataset for keeper in self._keepers.values() if keeper.loaded)

    @property
    def running(self) -> Mapping[Key, RunningFold]:
        """Every fold whose end was not reported yet, by fold and attempt."""
        return self._running

    @property
    def pids(self) -> frozenset[int]:
        """Of the servers."""
        return frozenset(server.pid for server in self._servers.values() if server.pid is not None)

    def forget(self, dataset: str) -> None:
        """Its keeper ends once its folds have; the next fold of that name loads the dataset again."""
        for key in [key for key in self._keepers if key[1] == dataset]:
            self._keepers.pop(key).link.send({"op": "close"})

    def close(self) -> None:
        """Folds that run go on without us, write their results, and everything ends by itself."""
        for owner in list(self._owners.values()):
            if isinstance(owner, Server):
                owner.close()
            else:
                owner.link.close()
        self._owners.clear()
        self._epoll.close()

    def _keeper(self, job: FoldJob) -> _Keeper:
        key = (job.environment, job.dataset)
        keeper = self._keepers.get(key)
        if keeper is None:
            labels = LabelRows(job.prepared_folder)
            ours, theirs = wire.pair()
            keeper = self._keepers[key] = _Keeper(job.dataset, job.environment, Link(ours), labels)
            self._own(keeper.link, keeper)
            order = {
                "op": "open",
                "folder": str(job.prepared_folder),
                "cores": self._cores_per_slot,
                "told": {"dataset": job.dataset, "environment": job.environment},
            }
            self._servers[job.environment].ask(order, [theirs.detach()])
            self._close_idle_keepers(but=keeper)
        return keeper

    def _close_idle_keepers(self, *, but: _Keeper) -> None:
        idle = [(key, keeper) for key, keeper in self._keepers.items() if not keeper.folds and keeper is not but]
        idle.sort(key=lambda item: item[1].last_used)
        for key, keeper in idle[: max(0, len(self._keepers) - self._max_loaded_datasets)]:
            del self._keepers[key]
            keeper.link.send({"op": "close"})

    def _start_server(self, server: Server) -> None:
        try:
            server.start()
        except OSError as error:
            self._report_death(server, f"{server.ended(now=time.monotonic())}: {error}")
            return
        assert server.link is not None
        self._own(server.link, server)

    def _hear_server(self, server: Server) -> None:
        assert server.link is not None
        for message in server.link.messages():
            server.became_ready()
            self._reports.append(ServerReady(server.environment, message["python"], message["packages"]))
        if server.link.gone:
            self._disown(server.link)
            self._report_death(server, server.ended(now=time.monotonic()))

    def _report_death(self, server: Server, reason: str) -> None:
        self._reports.append(ServerDied(server.environment, reason, max(0.0, server.retry_at - time.monotonic())))

    def _hear_keeper(self, keeper: _Keeper) -> None:
        for message in keeper.link.messages():
            match message["op"]:
                case "loaded":
                    keeper.loaded = True
                    self._reports.append(DatasetLoaded(keeper.dataset))
                case "unloadable":
                    keeper.reason = f"its dataset can't be loaded: {message['reason']}"
                    self._reports.append(DatasetUnloadable(keeper.dataset, message["reason"]))
                case "usage":
                    for fold, attempt, memory_bytes in message["folds"]:
                        self._update((fold, attempt), memory_bytes=memory_bytes)
                case _:
                    self._hear_of_fold(keeper, message)
        if keeper.link.gone:
            self._lose_keeper(keeper)

    def _hear_of_fold(self, keeper: _Keeper, message: dict[str, Any]) -> None:
        key = (message["fold"], message["attempt"])
        if message["op"] == "phase":
            phase = Phase(message["phase"])
            self._update(key, phase=_NEXT_PHASE[phase])
            took = (message["seconds"], message["cpu_seconds"], message["peak_bytes"])
            self._reports.append(PhaseEnded(*key, phase, *took))
            return
        if message["op"] == "ended":
            self._update(key, closing=True)
            return
        keeper.folds.discard(key)
        keeper.last_used = time.monotonic()
        running = self._running.pop(key)
        if message["op"] == "finished":
            self._reports.append(FoldFinished(*key, running.run_folder))
        else:
            self._reports.append(FoldVanished(*key, message["reason"]))

    def _lose_keeper(self, keeper: _Keeper) -> None:
        self._disown(keeper.link)
        keeper.link.close()
        key = (keeper.environment, keeper.dataset)
        if self._keepers.get(key) is keeper:
            del self._keepers[key]
        for fold in sorted(keeper.folds):
            self._conclude(fold, reason=keeper.reason)

    def _conclude(self, key: Key, *, reason: str) -> None:
        """Reports the end of a fold that nobody will tell us of; watches it if it has not ended."""
        running = self._running[key]
        found = adoption.look_at(running.run_folder)
        if found is Adoption.ALIVE:
            # Its lock may only just be on the way back from a keeper that never read its job.
            self._adopted[key] = reason
            return
        self._adopted.pop(key, None)
        del self._running[key]
        if found is Adoption.FINISHED:
            self._reports.append(FoldFinished(*key, running.run_folder))
        else:
            self._reports.append(FoldVanished(*key, reason))

    def _look_at_adopted(self) -> None:
        for key, reason in sorted(self._adopted.items()):
            self._conclude(key, reason=reason)

    def _update(self, key: Key, **changes: Any) -> None:
        if key in self._running:
            self._running[key] = replace(self._running[key], **changes)

    def _hear_helper(self, helper: _Helper) -> None:
        for message in helper.link.messages():
            if message["op"] == "folds":
                helper.folds += [GeneratedFold(*fold) for fold in message["folds"]]
            else:
                helper.answered = True
                self._reports.append(_answer(helper, message))
        if helper.link.gone:
            self._disown(helper.link)
            helper.link.close()
            if not helper.answered:
                lost = {"op": "failed", "reason": "the process that did it ended before it was done", "transient": True}
                self._reports.append(_answer(helper, lost))

    def _own(self, link: Link, owner: Server | _Keeper | _Helper) -> None:
        self._owners[link.fileno()] = owner
        self._epoll.register(link.fileno(), select.EPOLLIN)

    def _disown(self, link: Link) -> None:
        del self._owners[link.fileno()]
        self._epoll.unregister(link.fileno())


def _answer(helper: _Helper, message: dict[str, Any]) -> Report:
    task = helper.task
    if isinstance(task, PrepareTask):
        if message["op"] == "failed":
            return PrepareFailed(task.dataset, task.prepared_folder, message["reason"], message["transient"])
        files = tuple(task.prepared_folder / name for name in message["files"])
        return Prepared(task.dataset, task.prepared_folder, message["n_train"], message["n_test"], files)
    if message["op"] == "failed":
        return FoldsNotGenerated(task.key, message["reason"], message["transient"])
    return FoldsGenerated(task.key, tuple(helper.folds))
