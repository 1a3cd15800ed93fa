"""The ledger under any order of facts: each fold is in one place, and what is counted is there."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from datarun_daemon.core import events as e
from datarun_daemon.core.ledger import Ledger
from datarun_daemon.core.model import BundleId, BundleKind, FoldState, Priority, Split, SplitState, Stage
from datarun_daemon.core.records import Fold
from datarun_daemon.core.scheduler import (
    Capacity,
    DeliverPredictions,
    FailFold,
    Policy,
    PublishFold,
    StartFold,
    StopAttempt,
    plan,
)

ALICE = 1001
IDS = ("f1", "f2", "f3", "f4", "f5")
H, L = Priority.HIGH, Priority.LOW
POLICY = Policy(slots=2, slots_of={H: 2, L: 2}, memory_bytes_of={H: 1, L: 1}, memory_budget_bytes=10, max_attempts=2)


class AnyHistory(RuleBasedStateMachine):
    """Clients and runners do what they like; the decisions of the plan are carried out now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.tickets = 0
        #: attempts that a process works on
        self.running: set[tuple[str, int]] = set()
        #: those that were told to stop
        self.stopping: set[tuple[str, int]] = set()
        #: whose results are archived, each under its own number
        self.archived: set[tuple[str, int]] = set()

    def note(self, fact: e.Event) -> None:
        self.ledger.apply(fact, sequence=self.ledger.sequence + 1, at=float(self.ledger.sequence))

    def bundle(self, kind: BundleKind = BundleKind.REQUESTS) -> BundleId:
        self.tickets += 1
        return BundleId(kind, f"b{self.tickets}", self.tickets, "s")

    @precondition(lambda self: not self.ledger.datasets)
    @rule()
    def dataset(self) -> None:
        bundle = self.bundle(BundleKind.DATASETS)
        self.note(e.DatasetAccepted(bundle, "iris", 1, ALICE, "d", "f", "y", ("classifier",), "f.csv", Split(0.5)))

    @precondition(lambda self: self.ledger.to_split)
    @rule(n_train=st.sampled_from([5, 75]))
    def split(self, n_train: int) -> None:
        self.note(e.DatasetSplit("iris", Split(0.5), n_train, 75, "prepared"))

    @precondition(lambda self: self.ledger.datasets and self.ledger.datasets["iris"].split_state is SplitState.SPLIT)
    @rule()
    def split_again(self) -> None:
        self.note(e.SplitRequested(self.bundle(), ALICE, "iris", Split(0.2), force=True))

    @rule(
        ids=st.sets(st.sampled_from(IDS), min_size=1),
        priority=st.sampled_from(Priority),
        digest=st.sampled_from("ab"),
    )
    def folds(self, ids: set[str], priority: Priority, digest: str) -> None:
        rows = tuple(e.FoldRow(fold, priority, 0, 8, 2, 9) for fold in sorted(ids))
        known = self.ledger.submissions.get("s")
        brings = known is None or known.code_digest != digest
        fact = e.FoldsAccepted(
            self.bundle(BundleKind.FOLDS), ALICE, "s", "iris" if brings else None, "f",
            ("classifier.py",) if brings else (), digest if brings else "", "i.npy", rows, priority,
            ("submission", "submission_fold"),
        )  # fmt: skip
        self.note(fact)

    @precondition(lambda self: self.ledger.folds)
    @rule(data=st.data(), request=st.sampled_from(["cancel", "priority", "rerun", "predictions"]))
    def request(self, data: st.DataObject, request: str) -> None:
        chosen = st.lists(st.sampled_from(sorted(self.ledger.folds)), min_size=1, unique=True)
        ids = tuple(data.draw(chosen))
        match request:
            case "cancel":
                self.note(e.CancelRequested(self.bundle(), ALICE, ids))
            case "priority":
                self.note(e.PriorityRequested(self.bundle(), ALICE, ids, data.draw(st.sampled_from(Priority))))
            case "rerun":
                self.note(e.RerunRequested(self.bundle(), ALICE, ids))
            case "predictions":
                self.note(e.PredictionsRequested(self.bundle(), ALICE, ids))

    @rule()
    def decide(self) -> None:
        running = {H: 0, L: 0}
        for fold, _ in self.running:
            running[self.ledger.folds[fold].priority] += 1
        for decision in plan(self.ledger, 1e6, policy=POLICY, capacity=Capacity(running, frozenset({"iris"}))):
            match decision:
                case StartFold(fold, attempt):
                    self.note(e.FoldStarted(fold, attempt))
                    self.running.add((fold, attempt))
                case FailFold(fold, stage, message):
                    attempt = self.ledger.folds[fold].attempt if self.ledger.folds[fold].started_at else 0
                    self.note(e.FoldFailed(fold, attempt, stage, message))
                case PublishFold(fold, attempt):
                    assert (fold, attempt) not in self.archived, "a result is of its own attempt"
                    self.archived.add((fold, attempt))
                    self.note(e.FoldPublished(fold, attempt))
                case StopAttempt(fold, attempt):
                    assert (fold, attempt) in self.running, "only what runs is stopped"
                    self.stopping.add((fold, attempt))
                case DeliverPredictions(ticket):
                    self.note(e.PredictionsDelivered(ticket))

    @precondition(lambda self: self.stopping & self.running)
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        fold, attempt = data.draw(st.sampled_from(sorted(self.stopping & self.running)))
        self.running.discard((fold, attempt))
        current = (fold, attempt) not in self.ledger.superseded
        self.note(e.FoldCancelled(fold, attempt) if current else e.FoldLost(fold, attempt, "stopped"))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), ending=st.sampled_from(["trained", "tested", "failed", "lost"]))
    def move(self, data: st.DataObject, ending: str) -> None:
        fold, attempt = data.draw(st.sampled_from(sorted(self.running)))
        if ending == "trained":
            self.note(e.FoldTrained(fold, attempt, 1.0))
            return
        self.running.discard((fold, attempt))
        match ending:
            case "tested":
                self.note(e.FoldTested(fold, attempt, 1.0, 1.0, 1.0))
            case "failed":
                self.note(e.FoldFailed(fold, attempt, Stage.TRAIN, "no"))
            case "lost":
                self.note(e.FoldLost(fold, attempt, "gone"))

    @precondition(lambda self: self.ledger.new)
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        fold = self.ledger.folds[data.draw(st.sampled_from(sorted(self.ledger.new)))]
        self.note(e.FoldTaken(fold.id, fold.attempt))

    @invariant()
    def each_fold_is_in_one_place(self) -> None:
        for fold in self.ledger.folds.values():
            assert self.places(fold) == 1, (fold, self.places(fold))

    def places(self, fold: Fold) -> int:
        ledger = self.ledger
        indices = (
            ledger.waiting[fold.priority].get(fold.owner),
            ledger.without_dataset.get(fold.dataset),
            ledger.without_submission.get(fold.submission),
        )
        waits = sum(fold.id in getattr(index, "folds", index) for index in indices if index)
        if fold.state is FoldState.TODO:
            assert fold.id not in ledger.in_motion
            return max(waits, int(fold.id in ledger.doomed))
        assert not waits
        assert fold.id not in ledger.doomed
        assert (fold.id in ledger.in_motion) == fold.state.in_motion
        if fold.state.ended:
            return int(fold.id in ledger.ended_unpublished) + int(fold.published)
        return 1

    @invariant()
    def what_is_counted_is_there(self) -> None:
        ledger = self.ledger
        assert sum(n for states in ledger.counts.values() for n in states.values()) == len(ledger.folds)
        assert all(n >= 0 for states in ledger.counts.values() for n in states.values())
        assert ledger.to_cancel.keys() <= ledger.in_motion.keys()
        assert all(fold.published and fold.new for fold in ledger.new.values())
        moving = {(fold.id, fold.attempt) for fold in ledger.in_motion.values()}
        assert moving | ledger.superseded.keys() == self.running


AnyHistory.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyHistory = AnyHistory.TestCase
