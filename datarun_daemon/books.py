"""What the loop remembers: the ledger, the catalog behind it, and what has to wait for the line.

Facts noted in a turn change the ledger at once and become durable together in :meth:`commit`;
whatever they announce (a task for a worker, the publication of a result) is held back until then.
"""

from __future__ import annotations

import time
from typing import Any

from datarun_daemon.core import events as e
from datarun_daemon.core.ledger import Ledger
from datarun_daemon.core.model import uid_of
from datarun_daemon.core.records import Fold
from datarun_daemon.core.scheduler import Decision
from datarun_daemon.spool.catalog import Catalog
from datarun_daemon.spool.deliveries import Answer
from datarun_daemon.spool.layout import Spool
from datarun_daemon.spool.outbox import ResultPlace
from datarun_daemon.worker import Worker


class Books:
    """One writer, one fsync a turn."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.ledger = Ledger()
        self._catalog = Catalog(spool.catalog_file)
        self._noted: list[e.Event] = []
        self._at = 0.0
        self._after: list[tuple[Worker[Any], object]] = []
        self._publish: list[ResultPlace | Answer] = []
        #: decisions being carried out, which the plan need not make again
        self.underway: set[Decision] = set()
        #: changes with every fact, for views that are rewritten only when there is something new
        self.changes = 0

    def replay(self, *, shown: int = 0) -> int:
        """The ledger is what the catalog says; returns the number of lines. Lines up to ``shown`` touch nothing."""
        number = 0
        for entry in self._catalog.replay():
            self.ledger.apply(entry.fact, sequence=entry.sequence, at=entry.at)
            number = entry.sequence
            if number == shown:
                self.ledger.touched.clear()
                self.ledger.touched_datasets.clear()
        return number

    def note(self, fact: e.Event) -> None:
        if not self._noted:
            # one time for a turn, never before the last line's
            self._at = max(self._at, round(time.time(), 6))
        self.ledger.apply(fact, sequence=self.ledger.sequence + 1, at=self._at)
        self._noted.append(fact)
        self.changes += 1

    def afterwards(self, worker: Worker[Any], task: object) -> None:
        """Give the worker this task as soon as everything noted so far is durable."""
        self._after.append((worker, task))

    def publish_afterwards(self, what: ResultPlace | Answer) -> None:
        self._publish.append(what)

    def commit(self) -> list[ResultPlace | Answer]:
        """Everything noted is durable and the tasks that waited are given; returns what to publish.

        Raises:
            DiskFailed: the daemon must end; the next start goes on from what the catalog holds.
        """
        if self._noted:
            entries = self._catalog.append(self._noted, at=self._at)
            assert entries[-1].sequence == self.ledger.sequence
            self._noted.clear()
        for worker, task in self._after:
            worker.give(task)
        publish = list(self._publish)
        self._after.clear()
        self._publish.clear()
        return publish

    def close(self) -> None:
        self._catalog.close()

    def place(self, fold: Fold, attempt: int | None = None) -> ResultPlace:
        """Where the result of this fold goes."""
        attempt = fold.attempt if attempt is None else attempt
        return ResultPlace(fold.dataset, fold.submission, fold.id, attempt, uid_of(fold.owner))
