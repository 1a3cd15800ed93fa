"""The thread that stores results: archive, stage, make durable, and see what was taken away.

Everything it reports as done is durable; the loop then writes the lines and publishes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datarun_daemon import disk
from datarun_daemon.core.model import Priority
from datarun_daemon.spool.deliveries import Answer, Deliveries
from datarun_daemon.spool.indices import FoldIndices, unpack
from datarun_daemon.spool.outbox import Outbox, ResultDamaged, ResultPlace
from datarun_daemon.worker import Worker

#: an OSError is most often a full disk; the task is tried again after this time
RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Rows:
    """Where the row numbers of a fold are stored."""

    file: Path
    offset: int
    n_train: int
    n_test: int

    def read(self) -> tuple[list[int], list[int]]:
        fold = FoldIndices("", Priority.LOW, self.offset, self.n_train, self.n_test, 0)
        train_is, test_is = unpack(self.file, fold)
        return train_is.tolist(), test_is.tolist()


@dataclass(frozen=True, slots=True)
class Collect:
    """Take over the result that a run left."""

    place: ResultPlace
    run_folder: Path
    facts: Mapping[str, object]
    rows: Rows
    #: False: only into the archive
    publish: bool = True


@dataclass(frozen=True, slots=True)
class Stage:
    """Stage the archived result; one made of ``facts`` and ``log`` if no run left any."""

    place: ResultPlace
    facts: Mapping[str, object]
    log: str
    rows: Rows


@dataclass(frozen=True, slots=True)
class MakeDurable:
    """Make what a report names durable, then hand the report back."""

    paths: tuple[Path, ...]
    below: Path
    report: object


@dataclass(frozen=True, slots=True)
class Remove:
    folder: Path


@dataclass(frozen=True, slots=True)
class LookForTaken:
    places: tuple[ResultPlace, ...]


@dataclass(frozen=True, slots=True)
class Deliver:
    """Stage the answer to a predictions request."""

    answer: Answer


Task = Collect | Stage | MakeDurable | Remove | LookForTaken | Deliver


@dataclass(frozen=True, slots=True)
class Collected:
    """The result of a run is archived and, if it is to be published, staged."""

    place: ResultPlace
    result: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Staged:
    place: ResultPlace


@dataclass(frozen=True, slots=True)
class Delivered:
    """The answer is staged."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Damaged:
    """What the run left is no whole result."""

    place: ResultPlace
    reason: str


@dataclass(frozen=True, slots=True)
class Durable:
    report: object


@dataclass(frozen=True, slots=True)
class Taken:
    places: tuple[ResultPlace, ...]


@dataclass(frozen=True, slots=True)
class Postponed:
    """The disk refused; nothing is lost, and the task has to be given again later."""

    task: Task
    reason: str


class Librarian(Worker[Task]):
    """Owns the outbox but for the last rename, which the loop does after the line."""

    def __init__(self, outbox: Outbox, deliveries: Deliveries, post: Callable[[object], None]) -> None:
        super().__init__("librarian", post)
        self._outbox = outbox
        self._deliveries = deliveries

    def work(self, tasks: Sequence[Task]) -> None:
        done: list[tuple[Collect | Stage, object]] = []
        for task in tasks:
            if isinstance(task, Collect | Stage):
                self._archive(task, done)
        self._stage(done)
        for task in tasks:
            if not isinstance(task, Collect | Stage):
                self._other(task)

    def _archive(self, task: Collect | Stage, done: list[tuple[Collect | Stage, object]]) -> None:
        try:
            if isinstance(task, Stage):
                if not self._outbox.is_archived(task.place):
                    facts = {**task.facts, **_row_facts(task.rows)}
                    self._outbox.archive_without_run(task.place, facts, task.log)
                done.append((task, Staged(task.place)))
                return
            facts = {**task.facts, **_row_facts(task.rows)}
            result = self._outbox.archive_run(task.place, task.run_folder / "out", facts)
            done.append((task, Collected(task.place, result)))
        except ResultDamaged as error:
            self.post(Damaged(task.place, str(error)))
        except OSError as error:
            self.post(Postponed(task, str(error)))

    def _stage(self, done: list[tuple[Collect | Stage, object]]) -> None:
        if not done:
            return
        try:
            self._outbox.stage([task.place for task, _ in done if not isinstance(task, Collect) or task.publish])
        except OSError as error:
            for task, _ in done:
                self.post(Postponed(task, str(error)))
            return
        for _, report in done:
            self.post(report)
        for task, _ in done:
            if isinstance(task, Collect):
                _remove_run(task.run_folder)

    def _other(self, task: Task) -> None:
        match task:
            case MakeDurable(paths, below, report):
                disk.make_durable(paths, below=below)
                self.post(Durable(report))
            case Remove(folder):
                _remove_run(folder)
            case Deliver(answer):
                try:
                    self._deliveries.stage(answer)
                except OSError as error:
                    self.post(Postponed(task, str(error)))
                else:
                    self.post(Delivered(answer))
            case LookForTaken(places):
                self.post(Taken(tuple(self._outbox.taken(places))))


def _row_facts(rows: Rows) -> dict[str, object]:
    train_is, test_is = rows.read()
    return {"train_is": train_is, "test_is": test_is}


def _remove_run(folder: Path) -> None:
    """The attempt's folder is gone, and its fold's if that was the last one."""
    try:
        disk.remove_tree(folder)
        folder.parent.rmdir()
    except OSError:
        pass  # another attempt lies there, or it stays until the next start removes it
