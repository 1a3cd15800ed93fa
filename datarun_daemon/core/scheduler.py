"""What to do next, given everything that is known: a pure function from a ledger to decisions.

H before L; fair between the owners within a priority, then first come, first served; an old L
gets its turn after a row of H; folds whose dataset is loaded may overtake a few others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from datarun_daemon.core.ledger import Ledger
from datarun_daemon.core.model import Owner, Priority, Stage
from datarun_daemon.core.records import Fold


@dataclass(frozen=True, slots=True)
class Policy:
    """What the administrator decided."""

    #: folds that may run at once, of both priorities together
    slots: int
    slots_of: Mapping[Priority, int]
    #: what a fold of each priority may use
    memory_bytes_of: Mapping[Priority, int]
    #: what all running folds together may use
    memory_budget_bytes: int
    #: a fold lost this many times ends in ERROR
    max_attempts: int = 3
    #: after so many starts of H, an L that waited long enough is next
    high_in_a_row: int = 8
    low_patience_seconds: float = 600.0
    #: how far behind the head of a queue a fold of a loaded dataset is looked for
    affinity_window: int = 16
    #: how often the head of a queue may be overtaken so
    affinity_skips: int = 8


@dataclass(frozen=True, slots=True)
class Capacity:
    """What is in use right now."""

    #: running folds; a fold that is only being stored holds no slot
    running: Mapping[Priority, int]
    loaded_datasets: frozenset[str] = frozenset()
    #: False while draining, or before a runner is ready
    accepting: bool = True
    #: what was decided before and is still being done, as the decisions themselves
    underway: frozenset[Decision] = frozenset()


@dataclass(frozen=True, slots=True)
class StartFold:
    fold: str
    attempt: int


@dataclass(frozen=True, slots=True)
class StopAttempt:
    """End a running attempt whose result no longer counts, or whose owner cancelled it."""

    fold: str
    attempt: int


@dataclass(frozen=True, slots=True)
class FailFold:
    """End a fold that cannot run, or was lost too often."""

    fold: str
    stage: Stage
    message: str


@dataclass(frozen=True, slots=True)
class PublishFold:
    """Put the result of an ended fold into the outbox."""

    fold: str
    attempt: int


@dataclass(frozen=True, slots=True)
class SplitDataset:
    dataset: str


@dataclass(frozen=True, slots=True)
class GenerateFolds:
    ticket: int


@dataclass(frozen=True, slots=True)
class DeliverPredictions:
    """Answer a predictions request."""

    ticket: int


Decision = StartFold | StopAttempt | FailFold | PublishFold | SplitDataset | GenerateFolds | DeliverPredictions


def plan(ledger: Ledger, now: float, *, policy: Policy, capacity: Capacity) -> list[Decision]:
    """Everything that should be done now and is not underway yet; starts come last, in order.

    ``now`` is in seconds since the epoch, like the times in the ledger.
    """
    decisions: list[Decision] = []
    decisions += [StopAttempt(fold, attempt) for fold, attempt in sorted(ledger.superseded)]
    decisions += [StopAttempt(fold.id, fold.attempt) for fold in ledger.to_cancel.values()]
    decisions += [FailFold(fold, Stage.DATA, reason) for fold, reason in ledger.doomed.items()]
    decisions += [PublishFold(fold.id, fold.attempt) for fold in ledger.ended_unpublished.values()]
    decisions += [DeliverPredictions(ticket) for ticket in ledger.to_deliver]
    if capacity.accepting:
        decisions += [SplitDataset(name) for name in ledger.to_split]
        decisions += [GenerateFolds(ticket) for ticket in ledger.to_generate if _can_generate(ledger, ticket)]
        decisions += _starts(ledger, now, policy, capacity)
    return [decision for decision in decisions if decision not in capacity.underway]


def order(ledger: Ledger, now: float, *, policy: Policy) -> Iterator[Fold]:
    """The folds that could run now, in the order in which they would start, one at a time."""
    turn = _Turn(ledger, now, policy, frozenset())
    while fold := turn.next(dict.fromkeys(Priority, True)):
        turn.take(fold)
        turn.in_motion[fold.owner] -= 1  # it has ended when the next one starts
        yield fold


def _can_generate(ledger: Ledger, ticket: int) -> bool:
    accepted = ledger.to_generate[ticket]
    submission = ledger.submissions.get(accepted.submission)
    dataset = ledger.datasets.get(submission.dataset) if submission else None
    return dataset is not None and dataset.n_train > 0 and dataset.name not in ledger.to_split


def _starts(ledger: Ledger, now: float, policy: Policy, capacity: Capacity) -> list[Decision]:
    decisions: list[Decision] = []
    running = {priority: capacity.running.get(priority, 0) for priority in Priority}
    turn = _Turn(ledger, now, policy, capacity.loaded_datasets)
    while sum(running.values()) < policy.slots:
        used = sum(running[p] * policy.memory_bytes_of[p] for p in Priority)
        free = {priority: running[priority] < policy.slots_of[priority] for priority in Priority}
        fold = turn.next(free)
        if fold is None or used + policy.memory_bytes_of[fold.priority] > policy.memory_budget_bytes:
            break  # what comes next waits for memory rather than being overtaken by what needs less
        turn.take(fold)
        if fold.lost >= policy.max_attempts:
            times = "once" if fold.lost == 1 else f"{fold.lost} times"
            reason = f"given up after it was lost {times}, last: {fold.message}"
            decisions.append(FailFold(fold.id, fold.stage or Stage.TRAIN, reason))
            continue
        running[fold.priority] += 1
        decisions.append(StartFold(fold.id, fold.attempt + 1))
    return decisions


@dataclass(slots=True)
class _Turn:
    """One look over the queues, remembering what it has given out without touching the ledger."""

    ledger: Ledger
    now: float
    policy: Policy
    loaded: frozenset[str]
    #: of each queue looked at: its next folds that are not taken, and those behind them
    ahead: dict[tuple[Priority, Owner], tuple[deque[Fold], Iterator[Fold]]] = field(default_factory=dict)
    taken_of: dict[tuple[Priority, Owner], int] = field(default_factory=dict)
    started: dict[tuple[Priority, Owner], int] = field(default_factory=dict)
    in_motion: dict[Owner, int] = field(default_factory=dict)
    high_in_a_row: int = 0
    clock: int = 0

    def __post_init__(self) -> None:
        self.high_in_a_row = self.ledger.high_in_a_row
        self.clock = self.ledger.sequence
        self.started.update(self.ledger.last_start)
        for fold in self.ledger.in_motion.values():
            self.in_motion[fold.owner] = self.in_motion.get(fold.owner, 0) + 1

    def next(self, free: Mapping[Priority, bool]) -> Fold | None:
        """The fold to start next among the priorities that have a free slot."""
        for priority in self._priorities():
            if free[priority] and (fold := self._of(priority)):
                return fold
        return None

    def take(self, fold: Fold) -> None:
        self.clock += 1
        key = (fold.priority, fold.owner)
        self._next(fold.priority, fold.owner, self.policy.affinity_window).remove(fold)
        self.taken_of[key] = self.taken_of.get(key, 0) + 1
        self.started[key] = self.clock
        self.in_motion[fold.owner] = self.in_motion.get(fold.owner, 0) + 1
        self.high_in_a_row = self.high_in_a_row + 1 if fold.priority is Priority.HIGH else 0

    def _priorities(self) -> tuple[Priority, Priority]:
        if self.high_in_a_row >= self.policy.high_in_a_row:
            owners = self._owners(Priority.LOW)
            oldest = min((self._head(Priority.LOW, owner).accepted_at for owner in owners), default=self.now)
            if self.now - oldest >= self.policy.low_patience_seconds:
                return Priority.LOW, Priority.HIGH
        return Priority.HIGH, Priority.LOW

    def _owners(self, priority: Priority) -> list[Owner]:
        queues = self.ledger.waiting[priority]
        return [o for o, queue in queues.items() if len(queue.folds) > self.taken_of.get((priority, o), 0)]

    def _of(self, priority: Priority) -> Fold | None:
        owners = self._owners(priority)
        if not owners:
            return None
        return self._from(
            priority,
            min(
                owners,
                key=lambda owner: (
                    self.in_motion.get(owner, 0),
                    self.started.get((priority, owner), 0),
                    self._head(priority, owner).sequence,
                ),
            ),
        )

    def _next(self, priority: Priority, owner: Owner, number: int = 1) -> deque[Fold]:
        """The next folds of the queue that are not taken; at least so many, if there are."""
        key = (priority, owner)
        if key not in self.ahead:
            self.ahead[key] = deque(), iter(self.ledger.waiting[priority][owner].folds.values())
        near, behind = self.ahead[key]
        near.extend(islice(behind, max(0, number - len(near))))
        return near

    def _head(self, priority: Priority, owner: Owner) -> Fold:
        return self._next(priority, owner)[0]

    def _from(self, priority: Priority, owner: Owner) -> Fold:
        """The head of the owner's queue, or one close behind it whose dataset is loaded."""
        head = self._head(priority, owner)
        passed_over = self.ledger.waiting[priority][owner].passed_over
        if head.dataset in self.loaded or passed_over >= self.policy.affinity_skips:
            return head
        near = self._next(priority, owner, self.policy.affinity_window)
        return next((fold for fold in near if fold.dataset in self.loaded), head)
