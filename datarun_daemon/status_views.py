"""The loop's side of ``status/``: copies what changed in the ledger, a little each turn, for the writing thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice

import structlog

from datarun_daemon.core.ledger import Ledger
from datarun_daemon.core.scheduler import Policy, order
from datarun_daemon.spool.fold_list import PAGE_FOLDS
from datarun_daemon.spool.fold_views import FoldView, WaitsFor, view_dataset, view_fold
from datarun_daemon.spool.layout import Spool
from datarun_daemon.view_writer import Anew, Complete, Lost, NotWritten, Report, Show, Shown, ViewWriter, Written

log = structlog.get_logger()

#: folds copied in one turn, which takes a millisecond or two
_FOLDS_A_TURN = 500
#: so many of the queue are numbered; fewer, but some at least, if it takes longer than this
_POSITIONS = 1000
_POSITIONS_SECONDS = 0.005
_POSITIONS_AT_LEAST = 50
#: a stop leaves more than this to the next start
_FOLDS_AT_STOP = 2000


class StatusViews:
    """Shows the ledger in ``status/``, in rounds; consumes its ``touched`` and ``touched_datasets``."""

    def __init__(self, spool: Spool, ledger: Ledger, waits_for: WaitsFor, post: Callable[[object], None]) -> None:
        self._ledger = ledger
        self._waits_for = waits_for
        self._writer = ViewWriter(spool, post)
        #: page of folds.jsonl on which each fold stands
        self._pages: dict[str, int] = {}
        #: folds of this round that are still to be copied
        self._pending: deque[str] = deque()
        #: line of the catalog up to which this round shows everything; None between rounds
        self._round: int | None = None
        self._last_round = self._written = 0
        self._next_round = 0.0
        self._anew = True
        #: the writer has not answered yet
        self._writing = False

    @property
    def sequence(self) -> int:
        """All files are at least as new as this line of the catalog."""
        if self._news or self._round is not None or self._written != self._last_round:
            return self._written
        return self._ledger.sequence

    def recall(self) -> int:
        """Before the replay: the line of the catalog up to which nothing needs to be shown again; 0 if all does."""
        recalled = self._writer.recall()
        self._last_round = self._written = recalled.sequence
        self._known_folds = recalled.folds
        return recalled.sequence

    def start(self) -> None:
        """After the replay, in which what was touched up to the line that :meth:`recall` named was cleared."""
        # a catalog that ends before that line was put back from a backup
        self._anew = not 0 < self._written <= self._ledger.sequence
        if self._anew:
            self._written = 0
        else:
            self._number(islice(self._ledger.folds, self._known_folds))
        self._ledger.touched_datasets.update(self._ledger.datasets)
        self._writer.start()

    def look(self, *, now: float, policy: Policy, every_seconds: float) -> None:
        """Begin a round if it is time, or go on with one; takes a few milliseconds at most.

        ``now`` is in seconds since the epoch.
        """
        ticks = time.monotonic()
        if self._writing or self.wait_seconds() != 0.0:
            return
        if self._round is None:
            self._next_round = ticks + every_seconds
            self._begin()
        self._hand_over(_FOLDS_A_TURN)
        if not self._pending:
            self._complete(now, policy)

    def wait_seconds(self) -> float | None:
        """When to look again; None if there is nothing to do, or the writer tells."""
        if self._writing:
            return None
        if self._round is not None:
            return 0.0
        return max(0.0, self._next_round - time.monotonic()) if self._news else None

    def take(self, report: Report) -> None:
        match report:
            case Shown():
                self._writing = False
            case Written(sequence):
                self._written = sequence
            case NotWritten(reason):
                log.warning("status_not_written", reason=reason)
            case Lost(reason):
                log.warning("status_written_anew", reason=reason)
                self._anew, self._round, self._written = True, None, 0
                self._pending.clear()

    def stop(self, *, now: float, policy: Policy) -> None:
        """The files are current, unless that is much work, which is left to the next start; the thread has ended."""
        if self._round is None and self._news and not self._much_to_do():
            self._begin()
        if self._round is not None and len(self._pending) <= _FOLDS_AT_STOP:
            self._hand_over(_FOLDS_AT_STOP)
            self._complete(now, policy)
        self._writer.stop()

    @property
    def _news(self) -> bool:
        return bool(self._anew or self._ledger.touched or self._ledger.touched_datasets)

    def _much_to_do(self) -> bool:
        return len(self._ledger.folds if self._anew else self._ledger.touched) > _FOLDS_AT_STOP

    def _begin(self) -> None:
        ledger = self._ledger
        self._round = ledger.sequence
        unknown = len(ledger.folds) - len(self._pages)
        # from the end, for going there from the beginning costs as much as there are folds
        new = list(islice(reversed(ledger.folds), unknown))[::-1]
        self._number(new)
        if self._anew:
            self._anew = False
            ledger.touched_datasets.update(ledger.datasets)
            self._writer.give(Anew())
            self._pending.extend(ledger.folds)
        else:
            self._pending.extend(new)
            self._pending.extend(ledger.touched.difference(new))
        ledger.touched.clear()

    def _hand_over(self, number: int) -> None:
        views: list[FoldView] = []
        while self._pending and len(views) < number:
            fold = self._ledger.folds[self._pending.popleft()]
            views.append(view_fold(self._ledger, fold, self._pages[fold.id], self._waits_for))
        self._writer.give(Show(tuple(views)))
        self._writing = True

    def _complete(self, now: float, policy: Policy) -> None:
        assert self._round is not None
        ledger = self._ledger
        touched = ledger.touched_datasets & ledger.datasets.keys()
        datasets = {name: view_dataset(ledger.datasets[name]) for name in touched}
        ledger.touched_datasets.clear()
        counts = {name: dict(of_states) for name, of_states in ledger.counts.items()}
        self._writer.give(
            Complete(self._round, self._order(now, policy), datasets, counts, tuple(ledger.new.values()))
        )
        self._last_round, self._round = self._round, None

    def _order(self, now: float, policy: Policy) -> tuple[tuple[int, str], ...]:
        found: list[tuple[int, str]] = []
        enough = time.perf_counter() + _POSITIONS_SECONDS
        for fold in islice(order(self._ledger, now, policy=policy), _POSITIONS):
            # accepted since this round began: it has no line yet, and gets its position with it
            found.append((self._pages.get(fold.id, -1), fold.id))
            if len(found) % _POSITIONS_AT_LEAST == 0 and time.perf_counter() > enough:
                break
        return tuple(found)

    def _number(self, ids: Iterable[str]) -> None:
        """The next folds have their pages; a page's number is one object for all of them."""
        rest = iter(ids)
        while True:
            known = len(self._pages)
            page, there = divmod(known, PAGE_FOLDS)
            self._pages.update(dict.fromkeys(islice(rest, PAGE_FOLDS - there), page))
            if len(self._pages) == known:
                return
