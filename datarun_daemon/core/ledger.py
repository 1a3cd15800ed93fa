"""What all facts add up to: the one picture of the spool that decisions are made from.

``apply`` is the only way in and never fails on a fact that ``admission`` let through. What waits,
moves or ended is indexed as it happens, so that a turn of the loop costs the same after a million
folds as after ten.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from datarun_daemon.core import events as e
from datarun_daemon.core.model import BundleId, FoldState, Priority, SplitState, Stage, StandardSplit


@dataclass(slots=True)
class Dataset:
    name: str
    number: int
    owner: int
    digest: str
    folder: str
    target_column: str
    workflow_elements: tuple[str, ...]
    data_file: str
    accepted_at: float
    split: StandardSplit | None
    split_state: SplitState
    #: why the split failed
    reason: str | None = None
    n_train: int = 0
    n_test: int = 0
    #: folder of the split data, relative to the spool
    prepared: str = ""


@dataclass(slots=True)
class Submission:
    id: str
    dataset: str
    owner: int
    folder: str
    files: tuple[str, ...]
    code_digest: str


@dataclass(slots=True)
class Fold:
    id: str
    submission: str
    #: "" as long as its submission is not there
    dataset: str
    owner: int
    priority: Priority
    state: FoldState
    #: sequence number of the line that accepted it: first come, first served
    sequence: int
    accepted_at: float
    indices: str
    offset: int
    n_train: int
    n_test: int
    max_index: int
    #: the last one started; 0 if none
    attempt: int = 0
    #: attempts that ended without a result
    lost: int = 0
    #: of the code that the last attempt started with
    code_digest: str = ""
    #: of the last attempt; 0 if none
    started_at: float = 0.0
    ended_at: float = 0.0
    stage: Stage | None = None
    message: str | None = None
    #: its result waits in the outbox
    new: bool = False
    published: bool = False


@dataclass(slots=True)
class Queue:
    """The folds of one owner and priority that could run now, in order of arrival."""

    folds: OrderedDict[str, Fold] = field(default_factory=OrderedDict)
    #: starts from behind the head since it became the head
    passed_over: int = 0

    def head(self) -> Fold:
        return next(iter(self.folds.values()))


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A bundle whose line is written, and which may still lie in its incoming folder."""

    bundle: BundleId
    #: what is wrong with it, if it was rejected
    rejected: e.BundleRejected | None


class Ledger:
    """The state of everything, as the sum of all events so far."""

    def __init__(self) -> None:
        self.datasets: dict[str, Dataset] = {}
        self.submissions: dict[str, Submission] = {}
        self.folds: dict[str, Fold] = {}
        #: folds that could run now
        self.waiting: dict[Priority, dict[int, Queue]] = {Priority.HIGH: {}, Priority.LOW: {}}
        #: folds whose dataset is not there or not split
        self.without_dataset: dict[str, dict[str, Fold]] = {}
        #: folds whose submission is not there
        self.without_submission: dict[str, dict[str, Fold]] = {}
        self.in_motion: dict[str, Fold] = {}
        #: attempts still running whose result no longer counts
        self.superseded: set[tuple[str, int]] = set()
        #: folds that can never run, and why
        self.doomed: dict[str, str] = {}
        self.ended_unpublished: dict[str, Fold] = {}
        #: published and not taken yet
        self.new: dict[str, Fold] = {}
        self.to_split: dict[str, Dataset] = {}
        self.to_generate: dict[int, e.FoldsAccepted] = {}
        self.unfinished: dict[int, Unfinished] = {}
        self.next_ticket = 1
        #: for fairness: sequence number of each owner's last start, per priority
        self.last_start: dict[tuple[Priority, int], int] = {}
        #: starts of H since the last start of L
        self.high_in_a_row = 0
        #: how many folds are in each state, per dataset ("" while their submission is not there)
        self.counts: dict[str, dict[FoldState, int]] = {}
        self.sequence = 0

    @classmethod
    def replay(cls, facts: Iterable[e.Event]) -> Self:
        """A ledger after these facts, numbered from 1 and a second apart."""
        ledger = cls()
        for number, fact in enumerate(facts, 1):
            ledger.apply(fact, sequence=number, at=float(number))
        return ledger

    def apply(self, fact: e.Event, *, sequence: int, at: float) -> None:
        """Take in one fact, with its line's number and its time in seconds since the epoch."""
        self.sequence = sequence
        _APPLY[type(fact)](self, fact, at)

    def _daemon_started(self, fact: e.DaemonStarted, at: float) -> None:
        pass  # for the reader of the catalog; nothing follows from it

    def _dataset_accepted(self, fact: e.DatasetAccepted, at: float) -> None:
        """A new one, or the mended data of one whose split failed."""
        self._bundle_done(fact.bundle, None)
        state = SplitState.WAITING if fact.split else SplitState.UNSPLIT
        dataset = Dataset(
            fact.name, fact.number, fact.owner, fact.digest, fact.folder, fact.target_column,
            fact.workflow_elements, fact.data_file, at, fact.split, state,
        )  # fmt: skip
        self.datasets[fact.name] = dataset
        if fact.split:
            self.to_split[fact.name] = dataset

    def _split_requested(self, fact: e.SplitRequested, at: float) -> None:
        self._bundle_done(fact.bundle, None)
        dataset = self.datasets[fact.dataset]
        dataset.split, dataset.split_state, dataset.reason = fact.split, SplitState.WAITING, None
        self.to_split[dataset.name] = dataset

    def _dataset_split(self, fact: e.DatasetSplit, at: float) -> None:
        dataset = self.datasets[fact.dataset]
        dataset.split, dataset.split_state, dataset.reason = fact.split, SplitState.SPLIT, None
        dataset.n_train, dataset.n_test, dataset.prepared = fact.n_train, fact.n_test, fact.prepared
        self.to_split.pop(dataset.name, None)
        for fold in self.without_dataset.pop(dataset.name, {}).values():
            self._enqueue(fold)

    def _dataset_split_failed(self, fact: e.DatasetSplitFailed, at: float) -> None:
        dataset = self.datasets[fact.dataset]
        dataset.split_state, dataset.reason = SplitState.FAILED, fact.reason
        self.to_split.pop(dataset.name, None)
        for fold in self.without_dataset.get(dataset.name, {}).values():
            self.doomed[fold.id] = f"the split of dataset {dataset.name} failed: {fact.reason}"

    def _folds_accepted(self, fact: e.FoldsAccepted, at: float) -> None:
        self._bundle_done(fact.bundle, None)
        if fact.files and fact.dataset is not None:
            self._submission_arrived(fact)
        if fact.cv:
            self.to_generate[fact.bundle.ticket] = fact
        self._add_folds(fact, fact.indices, fact.folds, at)

    def _folds_generated(self, fact: e.FoldsGenerated, at: float) -> None:
        self._add_folds(self.to_generate.pop(fact.ticket), fact.indices, fact.folds, at)

    def _folds_not_generated(self, fact: e.FoldsNotGenerated, at: float) -> None:
        self.to_generate.pop(fact.ticket, None)

    def _bundle_rejected(self, fact: e.BundleRejected, at: float) -> None:
        self._bundle_done(fact.bundle, fact)

    def _bundles_cleared(self, fact: e.BundlesCleared, at: float) -> None:
        for ticket in fact.tickets:
            self.unfinished.pop(ticket, None)

    def _fold_started(self, fact: e.FoldStarted, at: float) -> None:
        fold = self.folds[fact.fold]
        queue = self.waiting[fold.priority][fold.owner]
        was_head = queue.head() is fold
        self._dequeue(fold)
        queue.passed_over = 0 if was_head else queue.passed_over + 1
        self.last_start[fold.priority, fold.owner] = self.sequence
        self.high_in_a_row = self.high_in_a_row + 1 if fold.priority is Priority.HIGH else 0
        fold.attempt, fold.started_at = fact.attempt, at
        fold.code_digest = self.submissions[fold.submission].code_digest
        self.in_motion[fold.id] = fold
        self._move(fold, FoldState.RUNNING)

    def _fold_trained(self, fact: e.FoldTrained, at: float) -> None:
        if (fold := self._current(fact.fold, fact.attempt)) and fold.state.in_motion:
            self._move(fold, FoldState.TRAINED)

    def _fold_validated(self, fact: e.FoldValidated, at: float) -> None:
        if (fold := self._current(fact.fold, fact.attempt)) and fold.state.in_motion:
            self._move(fold, FoldState.VALIDATED)

    def _fold_tested(self, fact: e.FoldTested, at: float) -> None:
        if fold := self._ending(fact.fold, fact.attempt):
            self._end(fold, FoldState.TESTED, at)

    def _fold_failed(self, fact: e.FoldFailed, at: float) -> None:
        if fold := self._ending(fact.fold, fact.attempt):
            fold.stage, fold.message = fact.stage, fact.message
            self._end(fold, FoldState.ERROR, at)

    def _fold_lost(self, fact: e.FoldLost, at: float) -> None:
        if fold := self._ending(fact.fold, fact.attempt):
            fold.lost += fact.counted
            fold.stage = _stage_of(fold.state)
            fold.message = fact.reason
            self.in_motion.pop(fold.id, None)
            self._move(fold, FoldState.TODO)
            self._enqueue(fold, first=True)

    def _fold_published(self, fact: e.FoldPublished, at: float) -> None:
        if fold := self._current(fact.fold, fact.attempt):
            fold.published = fold.new = True
            self.ended_unpublished.pop(fold.id, None)
            self.new[fold.id] = fold

    def _fold_taken(self, fact: e.FoldTaken, at: float) -> None:
        if fold := self._current(fact.fold, fact.attempt):
            fold.new = False
            self.new.pop(fold.id, None)

    def _bundle_done(self, bundle: BundleId, rejected: e.BundleRejected | None) -> None:
        self.next_ticket = max(self.next_ticket, bundle.ticket + 1)
        self.unfinished[bundle.ticket] = Unfinished(bundle, rejected)

    def _submission_arrived(self, fact: e.FoldsAccepted) -> None:
        assert fact.dataset is not None
        submission = Submission(
            fact.submission, fact.dataset, fact.owner, fact.folder, fact.files, fact.code_digest
        )
        self.submissions[fact.submission] = submission
        for fold in self.without_submission.pop(fact.submission, {}).values():
            self._count(fold, -1)
            fold.dataset = submission.dataset
            self._count(fold, +1)
            self._place(fold)

    def _add_folds(self, fact: e.FoldsAccepted, indices: str, rows: tuple[e.FoldRow, ...], at: float) -> None:
        submission = self.submissions.get(fact.submission)
        dataset = submission.dataset if submission else ""
        for row in rows:
            fold = Fold(
                row.id, fact.submission, dataset, fact.owner, row.priority, FoldState.TODO, self.sequence, at,
                indices, row.offset, row.n_train, row.n_test, row.max_index,
            )  # fmt: skip
            if old := self.folds.get(row.id):
                self._forget(old)
                fold.attempt = old.attempt
            self.folds[row.id] = fold
            self._count(fold, +1)
            self._place(fold)

    def _place(self, fold: Fold) -> None:
        """A TODO fold goes where it waits: for its submission, its dataset, or a slot."""
        submission = self.submissions.get(fold.submission)
        if submission is None:
            self.without_submission.setdefault(fold.submission, {})[fold.id] = fold
            return
        if submission.owner != fold.owner:
            self.doomed[fold.id] = f"submission {submission.id} belongs to another user"
            return
        dataset = self.datasets.get(fold.dataset)
        if dataset and dataset.split_state is SplitState.SPLIT:
            self._enqueue(fold)
            return
        self.without_dataset.setdefault(fold.dataset, {})[fold.id] = fold
        if dataset and dataset.split_state is SplitState.FAILED:
            self.doomed[fold.id] = f"the split of dataset {dataset.name} failed: {dataset.reason}"

    def _enqueue(self, fold: Fold, *, first: bool = False) -> None:
        n_train = self.datasets[fold.dataset].n_train
        if fold.max_index >= n_train:
            self.doomed[fold.id] = (
                f"row number {fold.max_index} in train_is or test_is, but dataset {fold.dataset} has "
                f"{n_train} training rows (0 to {n_train - 1})"
            )
            return
        queue = self.waiting[fold.priority].setdefault(fold.owner, Queue())
        queue.folds[fold.id] = fold
        if first:
            queue.folds.move_to_end(fold.id, last=False)

    def _dequeue(self, fold: Fold) -> None:
        queue = self.waiting[fold.priority].get(fold.owner)
        if queue is None or queue.folds.pop(fold.id, None) is None:
            return
        if not queue.folds:
            del self.waiting[fold.priority][fold.owner]

    def _forget(self, fold: Fold) -> None:
        """A fold that is forced again: nothing of its old self waits, and what runs no longer counts."""
        self._dequeue(fold)
        for index in (self.without_dataset.get(fold.dataset), self.without_submission.get(fold.submission)):
            if index:
                index.pop(fold.id, None)
        if self.in_motion.pop(fold.id, None):
            self.superseded.add((fold.id, fold.attempt))
        for ended in (self.doomed, self.ended_unpublished, self.new):
            ended.pop(fold.id, None)
        self._count(fold, -1)

    def _current(self, fold_id: str, attempt: int) -> Fold | None:
        """The fold, unless this attempt at it was superseded and no longer counts."""
        return None if (fold_id, attempt) in self.superseded else self.folds[fold_id]

    def _ending(self, fold_id: str, attempt: int) -> Fold | None:
        """Like ``_current``, for facts after which no process of the attempt is left."""
        fold = self._current(fold_id, attempt)
        self.superseded.discard((fold_id, attempt))
        return fold

    def _end(self, fold: Fold, state: FoldState, at: float) -> None:
        self._dequeue(fold)
        self.doomed.pop(fold.id, None)
        for index in (self.without_dataset.get(fold.dataset), self.without_submission.get(fold.submission)):
            if index:
                index.pop(fold.id, None)
        self.in_motion.pop(fold.id, None)
        fold.ended_at = at
        self._move(fold, state)
        self.ended_unpublished[fold.id] = fold

    def _move(self, fold: Fold, state: FoldState) -> None:
        self._count(fold, -1)
        fold.state = state
        self._count(fold, +1)

    def _count(self, fold: Fold, change: int) -> None:
        counts = self.counts.get(fold.dataset)
        if counts is None:
            counts = self.counts[fold.dataset] = dict.fromkeys(FoldState, 0)
        counts[fold.state] += change


def _stage_of(state: FoldState) -> Stage:
    """The stage that a fold is in, having reached ``state``."""
    return {FoldState.TRAINED: Stage.VALIDATION, FoldState.VALIDATED: Stage.TEST}.get(state, Stage.TRAIN)


_APPLY: dict[type, Callable[[Ledger, Any, float], None]] = {
    e.DaemonStarted: Ledger._daemon_started,
    e.DatasetAccepted: Ledger._dataset_accepted,
    e.SplitRequested: Ledger._split_requested,
    e.DatasetSplit: Ledger._dataset_split,
    e.DatasetSplitFailed: Ledger._dataset_split_failed,
    e.FoldsAccepted: Ledger._folds_accepted,
    e.FoldsGenerated: Ledger._folds_generated,
    e.FoldsNotGenerated: Ledger._folds_not_generated,
    e.BundleRejected: Ledger._bundle_rejected,
    e.BundlesCleared: Ledger._bundles_cleared,
    e.FoldStarted: Ledger._fold_started,
    e.FoldTrained: Ledger._fold_trained,
    e.FoldValidated: Ledger._fold_validated,
    e.FoldTested: Ledger._fold_tested,
    e.FoldFailed: Ledger._fold_failed,
    e.FoldLost: Ledger._fold_lost,
    e.FoldPublished: Ledger._fold_published,
    e.FoldTaken: Ledger._fold_taken,
}
