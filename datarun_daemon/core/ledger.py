"""What all facts add up to: the one picture of the spool that decisions are made from.

``apply`` is the only way in and never fails on a fact that ``admission`` let through. What waits,
moves or ended is indexed as it happens, so that a turn of the loop costs the same after a million
folds as after ten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Self

from datarun_daemon.core import events as e
from datarun_daemon.core.model import BundleId, FoldState, Owner, Priority, SplitState, Stage
from datarun_daemon.core.records import Dataset, Delivery, Fold, Queue, Submission, Unfinished


class Ledger:
    """The state of everything, as the sum of all events so far."""

    def __init__(self) -> None:
        self.datasets: dict[str, Dataset] = {}
        self.submissions: dict[str, Submission] = {}
        self.folds: dict[str, Fold] = {}
        #: folds that could run now
        self.waiting: dict[Priority, dict[Owner, Queue]] = {Priority.HIGH: {}, Priority.LOW: {}}
        #: folds whose dataset is not there or not split
        self.without_dataset: dict[str, dict[str, Fold]] = {}
        #: folds whose submission is not there
        self.without_submission: dict[str, dict[str, Fold]] = {}
        self.in_motion: dict[str, Fold] = {}
        #: folds in motion that are to end as CANCELLED
        self.to_cancel: dict[str, Fold] = {}
        #: attempts still running whose result no longer counts, and their folds as they were
        self.superseded: dict[tuple[str, int], Fold] = {}
        #: folds that can never run, and why
        self.doomed: dict[str, str] = {}
        self.ended_unpublished: dict[str, Fold] = {}
        #: published and not taken yet
        self.new: dict[str, Fold] = {}
        self.to_split: dict[str, Dataset] = {}
        self.to_generate: dict[int, e.FoldsAccepted] = {}
        self.to_deliver: dict[int, Delivery] = {}
        self.unfinished: dict[int, Unfinished] = {}
        self.next_ticket = 1
        #: for fairness: sequence number of each owner's last start, per priority
        self.last_start: dict[tuple[Priority, Owner], int] = {}
        #: starts of H since the last start of L
        self.high_in_a_row = 0
        #: how many folds are in each state, per dataset ("" while their submission is not there)
        self.counts: dict[str, dict[FoldState, int]] = {}
        self.sequence = 0
        #: ids of folds, and names of datasets, that changed since whoever shows them cleared these
        self.touched: set[str] = set()
        self.touched_datasets: set[str] = set()

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
            fact.workflow_elements, fact.data_file, fact.extra_files, fact.specific, fact.format, fact.fold_files, at,
            fact.split, state, fact.bundle,
        )  # fmt: skip
        self.datasets[fact.name] = dataset
        self._touch_dataset(fact.name)
        if fact.split:
            self.to_split[fact.name] = dataset

    def _split_requested(self, fact: e.SplitRequested, at: float) -> None:
        self._bundle_done(fact.bundle, None)
        dataset = self.datasets[fact.dataset]
        again = dataset.split_state is SplitState.SPLIT
        dataset.split, dataset.split_state, dataset.reason = fact.split, SplitState.WAITING, None
        dataset.asked_by = fact.bundle
        self.to_split[dataset.name] = dataset
        self._touch_dataset(dataset.name)
        if again:
            self._run_on_the_new_split(dataset.name)

    def _dataset_split(self, fact: e.DatasetSplit, at: float) -> None:
        dataset = self.datasets[fact.dataset]
        dataset.split, dataset.split_state, dataset.reason = fact.split, SplitState.SPLIT, None
        dataset.n_train, dataset.n_test, dataset.prepared = fact.n_train, fact.n_test, fact.prepared
        self.to_split.pop(dataset.name, None)
        self.touched_datasets.add(dataset.name)
        for fold in self.without_dataset.pop(dataset.name, {}).values():
            self._enqueue(fold)

    def _dataset_split_failed(self, fact: e.DatasetSplitFailed, at: float) -> None:
        dataset = self.datasets[fact.dataset]
        dataset.split_state, dataset.reason = SplitState.FAILED, fact.reason
        self.to_split.pop(dataset.name, None)
        self.touched_datasets.add(dataset.name)
        for fold in self.without_dataset.get(dataset.name, {}).values():
            self.doomed[fold.id] = f"the split of dataset {dataset.name} failed: {fact.reason}"

    def _folds_accepted(self, fact: e.FoldsAccepted, at: float) -> None:
        self._bundle_done(fact.bundle, None)
        if fact.files and fact.dataset is not None:
            self._submission_arrived(fact, at)
        if fact.cv:
            self.to_generate[fact.bundle.ticket] = fact
        self._add_folds(fact, fact.indices, fact.folds, at)

    def _folds_generated(self, fact: e.FoldsGenerated, at: float) -> None:
        self._add_folds(self.to_generate.pop(fact.ticket), fact.indices, fact.folds, at)

    def _folds_not_generated(self, fact: e.FoldsNotGenerated, at: float) -> None:
        self.to_generate.pop(fact.ticket, None)

    def _predictions_requested(self, fact: e.PredictionsRequested, at: float) -> None:
        self._bundle_done(fact.bundle, None)
        results = []
        for fold in map(self.folds.__getitem__, fact.folds):
            results.append((fold.id, fold.attempt if fold.published else None, fold.new))
            if fold.new:
                self._no_longer_new(fold)
        self.to_deliver[fact.bundle.ticket] = Delivery(fact.bundle, fact.owner, tuple(results), fact.unknown)

    def _predictions_delivered(self, fact: e.PredictionsDelivered, at: float) -> None:
        del self.to_deliver[fact.ticket]

    def _cancel_requested(self, fact: e.CancelRequested, at: float) -> None:
        self._bundle_done(fact.bundle, None)
        for fold_id in fact.folds:
            self._cancel(self.folds[fold_id], "cancelled by its owner", at)

    def _priority_requested(self, fact: e.PriorityRequested, at: float) -> None:
        """What runs keeps its slot and its limits."""
        self._bundle_done(fact.bundle, None)
        for fold in map(self.folds.__getitem__, fact.folds):
            if fold.state is not FoldState.TODO or fold.priority is fact.priority:
                continue
            waited = self._dequeue(fold)
            fold.priority = fact.priority
            self._touch(fold)
            if waited:
                self._enqueue(fold)

    def _rerun_requested(self, fact: e.RerunRequested, at: float) -> None:
        self._bundle_done(fact.bundle, None)
        for fold_id in fact.folds:
            old = self.folds[fold_id]
            if old.state is not FoldState.TODO:
                self._again(old, sequence=self.sequence, at=at)

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

    def _fold_ended_untested(self, fact: e.FoldEndedUntested, at: float) -> None:
        if fold := self._ending(fact.fold, fact.attempt):
            self._end(fold, FoldState.VALIDATED_ONLY, at)

    def _fold_failed(self, fact: e.FoldFailed, at: float) -> None:
        if fold := self._ending(fact.fold, fact.attempt):
            fold.stage, fold.message = fact.stage, fact.message
            self._end(fold, FoldState.ERROR, at)

    def _fold_cancelled(self, fact: e.FoldCancelled, at: float) -> None:
        if fold := self._ending(fact.fold, fact.attempt):
            fold.message = fold.cancelling
            self._end(fold, FoldState.CANCELLED, at)

    def _fold_lost(self, fact: e.FoldLost, at: float) -> None:
        if fold := self._ending(fact.fold, fact.attempt):
            if fold.cancelling:
                fold.message = fold.cancelling
                self._end(fold, FoldState.CANCELLED, at)
                return
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
            self._touch(fold)

    def _fold_taken(self, fact: e.FoldTaken, at: float) -> None:
        if fold := self._current(fact.fold, fact.attempt):
            self._no_longer_new(fold)

    def _bundle_done(self, bundle: BundleId, rejected: e.BundleRejected | None) -> None:
        self.next_ticket = max(self.next_ticket, bundle.ticket + 1)
        self.unfinished[bundle.ticket] = Unfinished(bundle, rejected)

    def _no_longer_new(self, fold: Fold) -> None:
        fold.new = False
        self.new.pop(fold.id, None)
        self._touch(fold)

    def _submission_arrived(self, fact: e.FoldsAccepted, at: float) -> None:
        """A first time, or with other files than before: then what runs with those no longer matters."""
        assert fact.dataset is not None
        if fact.submission in self.submissions:
            for fold in [fold for fold in self.in_motion.values() if fold.submission == fact.submission]:
                self._cancel(fold, "cancelled, for its submission's files were replaced", at)
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
            self._add(fold)

    def _add(self, fold: Fold) -> None:
        """A fold to run, in the place of what was there of it before."""
        if old := self.folds.get(fold.id):
            self._forget(old)
            fold.attempt = old.attempt
        self.folds[fold.id] = fold
        self._count(fold, +1)
        self._place(fold)

    def _again(self, old: Fold, *, sequence: int, at: float) -> None:
        fold = Fold(
            old.id, old.submission, old.dataset, old.owner, old.priority, FoldState.TODO, sequence, at,
            old.indices, old.offset, old.n_train, old.n_test, old.max_index,
        )  # fmt: skip
        self._add(fold)

    def _run_on_the_new_split(self, dataset: str) -> None:
        """What did not end yet waits for it, in its old place; what runs is run anew."""
        for fold in [fold for fold in self.in_motion.values() if fold.dataset == dataset]:
            self._again(fold, sequence=fold.sequence, at=fold.accepted_at)
        for queues in self.waiting.values():
            waiting = [fold for queue in queues.values() for fold in queue.folds.values() if fold.dataset == dataset]
            for fold in waiting:
                self._dequeue(fold)
                self._place(fold)

    def _cancel(self, fold: Fold, reason: str, at: float) -> None:
        """It ends as CANCELLED: at once if it waits, else when its process is stopped; nothing if it has ended."""
        if fold.state.in_motion:
            fold.cancelling = reason
            self.to_cancel[fold.id] = fold
        elif fold.state is FoldState.TODO:
            fold.message = reason
            self._end(fold, FoldState.CANCELLED, at)

    def _place(self, fold: Fold) -> None:
        """A TODO fold goes where it waits: for its submission, its dataset, or a slot."""
        self._touch(fold)
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
        self._touch(fold)
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

    def _dequeue(self, fold: Fold) -> bool:
        """False if it was in no queue."""
        queue = self.waiting[fold.priority].get(fold.owner)
        if queue is None or queue.folds.pop(fold.id, None) is None:
            return False
        if not queue.folds:
            del self.waiting[fold.priority][fold.owner]
        return True

    def _forget(self, fold: Fold) -> None:
        """A fold that is forced again: nothing of its old self waits, and what runs no longer counts."""
        self._dequeue(fold)
        for index in (self.without_dataset.get(fold.dataset), self.without_submission.get(fold.submission)):
            if index:
                index.pop(fold.id, None)
        if self.in_motion.pop(fold.id, None):
            self.superseded[fold.id, fold.attempt] = fold
        self.doomed.pop(fold.id, None)
        for ended in (self.ended_unpublished, self.new, self.to_cancel):
            ended.pop(fold.id, None)
        self._count(fold, -1)

    def _current(self, fold_id: str, attempt: int) -> Fold | None:
        """The fold, unless this attempt at it was superseded and no longer counts."""
        return None if (fold_id, attempt) in self.superseded else self.folds[fold_id]

    def _ending(self, fold_id: str, attempt: int) -> Fold | None:
        """Like ``_current``, for facts after which no process of the attempt is left."""
        fold = self._current(fold_id, attempt)
        self.superseded.pop((fold_id, attempt), None)
        return fold

    def _end(self, fold: Fold, state: FoldState, at: float) -> None:
        self._dequeue(fold)
        self.doomed.pop(fold.id, None)
        for index in (self.without_dataset.get(fold.dataset), self.without_submission.get(fold.submission)):
            if index:
                index.pop(fold.id, None)
        self.in_motion.pop(fold.id, None)
        self.to_cancel.pop(fold.id, None)
        if not fold.started_at:
            fold.attempt += 1  # a result has a number of its own, even if no process was started for it
        fold.cancelling, fold.ended_at = None, at
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
        self._touch(fold)

    def _touch(self, fold: Fold) -> None:
        self.touched.add(fold.id)
        self.touched_datasets.add(fold.dataset)

    def _touch_dataset(self, name: str) -> None:
        """The dataset changed, and so did what the folds that wait for it wait for."""
        self.touched_datasets.add(name)
        self.touched.update(self.without_dataset.get(name, ()))


def _stage_of(state: FoldState) -> Stage:
    """The stage that a fold is in, having reached ``state``."""
    return {FoldState.TRAINED: Stage.VALIDATION, FoldState.VALIDATED: Stage.TEST}.get(state, Stage.TRAIN)


_APPLY: dict[type, Callable[[Ledger, Any, float], None]] = {
    e.DaemonStarted: Ledger._daemon_started,
    e.DatasetAccepted: Ledger._dataset_accepted,
    e.SplitRequested: Ledger._split_requested,
    e.PredictionsRequested: Ledger._predictions_requested,
    e.PredictionsDelivered: Ledger._predictions_delivered,
    e.CancelRequested: Ledger._cancel_requested,
    e.PriorityRequested: Ledger._priority_requested,
    e.RerunRequested: Ledger._rerun_requested,
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
    e.FoldEndedUntested: Ledger._fold_ended_untested,
    e.FoldFailed: Ledger._fold_failed,
    e.FoldCancelled: Ledger._fold_cancelled,
    e.FoldLost: Ledger._fold_lost,
    e.FoldPublished: Ledger._fold_published,
    e.FoldTaken: Ledger._fold_taken,
}
