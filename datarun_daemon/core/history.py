"""Everything that ever happened to one fold, told from the facts: attempts, versions of its submission, requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from datarun_daemon.core import events as e


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of the catalog that concerns the fold."""

    sequence: int
    #: seconds since the epoch
    at: float
    what: str
    #: None where it is about no attempt in particular
    attempt: int | None = None
    detail: str = ""


def history(facts: Iterable[tuple[int, float, e.Event]], fold: str) -> Iterator[Moment]:
    """Of sequence numbers, times and facts from the first on, those that concern the fold, as a person reads them."""
    story = _Story(fold)
    for sequence, at, fact in facts:
        for what, attempt, detail in story.tell(fact):
            yield Moment(sequence, at, what, attempt, detail)


_Told = tuple[str, int | None, str]


class _Story:
    def __init__(self, fold: str) -> None:
        self._fold = fold
        self._submission: str | None = None
        self._dataset: str | None = None
        #: of the submission, in case that its fold comes later
        self._versions: dict[str, tuple[str, str]] = {}
        #: bundles whose folds a splitter is to make
        self._to_come: dict[int, e.FoldsAccepted] = {}

    def tell(self, fact: e.Event) -> Iterator[_Told]:
        match fact:
            case e.FoldsAccepted():
                yield from self._accepted(fact)
            case e.FoldsGenerated(ticket, _, folds):
                accepted = self._to_come.pop(ticket)
                yield from self._registered(accepted, folds)
            case e.DatasetSplit(dataset, split, n_train, n_test) if dataset == self._dataset:
                yield "dataset split", None, f"{dataset}: {split}; {n_train} training rows, {n_test} test rows"
            case e.DatasetSplitFailed(dataset, _, reason) if dataset == self._dataset:
                yield "dataset not split", None, f"{dataset}: {reason}"
            case e.CancelRequested(bundle, owner, folds) if self._fold in folds:
                yield "cancel requested", None, f"by {owner} with {bundle.name}"
            case e.PriorityRequested(bundle, owner, folds, priority) if self._fold in folds:
                yield "priority requested", None, f"{priority} by {owner} with {bundle.name}"
            case e.RerunRequested(bundle, owner, folds) if self._fold in folds:
                yield "rerun requested", None, f"by {owner} with {bundle.name}"
            case e.PredictionsRequested(bundle, owner, folds) if self._fold in folds:
                yield "predictions requested", None, f"by {owner} with {bundle.name}"
            case _:
                if getattr(fact, "fold", None) == self._fold:
                    yield from _of_an_attempt(fact)

    def _accepted(self, fact: e.FoldsAccepted) -> Iterator[_Told]:
        if fact.files:
            known = self._versions.get(fact.submission)
            self._versions[fact.submission] = (fact.dataset or "", fact.code_digest)
            if fact.submission == self._submission and known is not None:
                yield "submission's files replaced", None, f"sha256 {fact.code_digest}, in {fact.folder}"
        if fact.cv:
            self._to_come[fact.bundle.ticket] = fact
        yield from self._registered(fact, fact.folds)

    def _registered(self, fact: e.FoldsAccepted, folds: Iterable[e.FoldRow]) -> Iterator[_Told]:
        row = next((row for row in folds if row.id == self._fold), None)
        if row is None:
            return
        again = self._submission is not None
        self._submission = fact.submission
        self._dataset, digest = self._versions.get(fact.submission, (None, "not here yet"))
        with_force = f", force: {', '.join(fact.force)}" if fact.force else ""
        detail = (
            f"submission {fact.submission} (sha256 {digest}), {row.n_train} training and {row.n_test} validation rows, "
            f"priority {row.priority}, by {fact.owner} with {fact.bundle.name}{with_force}"
        )
        yield ("accepted again" if again else "accepted"), None, detail


def _of_an_attempt(fact: e.Event) -> Iterator[_Told]:
    match fact:
        case e.FoldStarted(_, attempt):
            yield "started", attempt, ""
        case e.FoldTrained(_, attempt, seconds):
            yield "trained", attempt, f"{seconds:g} s"
        case e.FoldValidated(_, attempt, seconds):
            yield "validated", attempt, f"{seconds:g} s"
        case e.FoldTested(_, attempt):
            yield "tested", attempt, f"{fact.test_seconds:g} s"
        case e.FoldEndedUntested(_, attempt):
            yield "ended without a test set", attempt, ""
        case e.FoldFailed(_, attempt, stage, message):
            yield "failed", attempt, f"{stage}: {message}"
        case e.FoldCancelled(_, attempt):
            yield "cancelled", attempt, ""
        case e.FoldLost(_, attempt, reason):
            yield "attempt ended without a result", attempt, reason
        case e.FoldPublished(_, attempt):
            yield "published", attempt, ""
        case e.FoldTaken(_, attempt):
            yield "picked up", attempt, ""
