"""What runs next: facts in, decisions out, without any I/O."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datarun_daemon.core import events as e
from datarun_daemon.core.ledger import Ledger
from datarun_daemon.core.model import BundleId, BundleKind, FoldState, Priority, Split, Stage
from datarun_daemon.core.scheduler import (
    Capacity,
    Decision,
    FailFold,
    GenerateFolds,
    Policy,
    PublishFold,
    SplitDataset,
    StartFold,
    StopAttempt,
    order,
    plan,
)

ALICE, BOB = 1001, 1002
H, L = Priority.HIGH, Priority.LOW
SPLIT = Split(0.5)
GIB = 2**30


def bundle(ticket: int, kind: BundleKind = BundleKind.FOLDS) -> BundleId:
    return BundleId(kind, f"b{ticket}", ticket, f"s{ticket}")


def dataset(name: str = "iris", *, n_train: int = 75) -> list[e.Event]:
    return [
        e.DatasetAccepted(
            bundle(1, BundleKind.DATASETS), name, 1, ALICE, "d", f"store/{name}", "y", ("classifier",), "f.csv", SPLIT
        ),
        e.DatasetSplit(name, SPLIT, n_train, 75, "prepared"),
    ]


def folds(
    ids: Sequence[str], *, owner: int = ALICE, priority: Priority = L, name: str = "iris", submission: str = "",
    files: bool = True, max_index: int = 9, force: tuple[str, ...] = (),
) -> e.FoldsAccepted:  # fmt: skip
    rows = tuple(e.FoldRow(fold, priority, 0, 8, 2, max_index) for fold in ids)
    brought = ("classifier.py",) if files else ()
    return e.FoldsAccepted(
        bundle(2), owner, submission or f"s-{ids[0]}", name if files else None, "store/f", brought,
        "c" if files else "", "i.npy", rows, priority, force,
    )  # fmt: skip


def policy(slots: int = 1, **changes: object) -> Policy:
    values: dict[str, object] = {
        "slots": slots, "slots_of": {H: slots, L: slots}, "memory_bytes_of": {H: GIB, L: GIB},
        "memory_budget_bytes": 100 * GIB,
    }  # fmt: skip
    return Policy(**{**values, **changes})  # type: ignore[arg-type]


def decide(ledger: Ledger, *, now: float = 100.0, running: int = 0, **changes: object) -> list[Decision]:
    capacity = Capacity({L: running}, loaded_datasets=frozenset({"iris"}))
    return plan(ledger, now, policy=policy(**changes), capacity=capacity)  # type: ignore[arg-type]


def run_all(ledger: Ledger, *, now: float = 100.0, number: int = 100, **changes: object) -> list[str]:
    """Fold by fold on one slot: start what is planned, end it at once."""
    started = []
    for _ in range(number):
        decision = next((d for d in decide(ledger, now=now, **changes) if isinstance(d, StartFold)), None)
        if decision is None:
            break
        started.append(decision.fold)
        facts = [e.FoldStarted(decision.fold, decision.attempt), e.FoldTested(decision.fold, decision.attempt, 1, 1, 1)]
        for fact in facts:
            ledger.apply(fact, sequence=ledger.sequence + 1, at=now)
    return started


def test_a_high_fold_behind_fifty_low_ones_is_next():
    ledger = Ledger.replay([*dataset(), folds([f"l{n}" for n in range(50)]), folds(["h"], priority=H)])

    assert run_all(ledger, number=1) == ["h"]


def test_folds_of_two_owners_alternate():
    ledger = Ledger.replay([*dataset(), folds(["a1", "a2", "a3"]), folds(["b1", "b2", "b3"], owner=BOB)])

    assert run_all(ledger) == ["a1", "b1", "a2", "b2", "a3", "b3"]


def test_on_two_slots_the_second_goes_to_the_other_owner():
    ledger = Ledger.replay([*dataset(), folds(["a1", "a2", "a3"]), folds(["b1"], owner=BOB)])

    assert decide(ledger, slots=2) == [StartFold("a1", 1), StartFold("b1", 1)]


def test_folds_of_one_owner_run_in_order_of_arrival():
    ledger = Ledger.replay([*dataset(), folds(["3", "1"]), folds(["2"])])

    assert run_all(ledger) == ["3", "1", "2"]


def test_an_old_low_fold_is_not_starved_by_a_stream_of_high_ones():
    ledger = Ledger.replay([*dataset(), folds(["l"]), folds([f"h{n}" for n in range(30)], priority=H)])

    started = run_all(ledger, now=1000.0, high_in_a_row=8, low_patience_seconds=600.0)

    assert started.index("l") == 8


def test_a_young_low_fold_waits_behind_all_high_ones():
    ledger = Ledger.replay([*dataset(), folds(["l"]), folds([f"h{n}" for n in range(30)], priority=H)])

    assert run_all(ledger, now=100.0)[-1] == "l"


def test_a_fold_of_a_loaded_dataset_overtakes_the_head_of_its_queue_a_few_times_only():
    cold = [f"c{n}" for n in range(2)]
    warm = [f"w{n}" for n in range(5)]
    ledger = Ledger.replay([*dataset(), *dataset("cold"), folds(cold, name="cold"), folds(warm)])

    assert run_all(ledger, affinity_skips=3) == ["w0", "w1", "w2", "c0", "w3", "w4", "c1"]


def test_slots_of_a_priority_are_not_exceeded():
    ledger = Ledger.replay([*dataset(), folds(["l1", "l2", "l3"]), folds(["h1"], priority=H)])

    assert decide(ledger, slots=3, slots_of={H: 3, L: 1}) == [StartFold("h1", 1), StartFold("l1", 1)]


def test_what_does_not_fit_into_memory_waits_and_nothing_smaller_passes_it():
    ledger = Ledger.replay([*dataset(), folds(["h"], priority=H), folds(["l"])])

    decisions = decide(ledger, slots=2, running=1, memory_bytes_of={H: 3 * GIB, L: GIB}, memory_budget_bytes=3 * GIB)

    assert decisions == []


def test_a_full_house_starts_nothing():
    ledger = Ledger.replay([*dataset(), folds(["a"])])

    assert decide(ledger, slots=2, running=2) == []


def test_a_lost_fold_runs_again_before_its_owners_other_folds():
    ledger = Ledger.replay([*dataset(), folds(["a", "b"]), e.FoldStarted("a", 1), e.FoldLost("a", 1, "power")])

    assert run_all(ledger) == ["a", "b"]


def test_a_fold_lost_too_often_ends_in_error_with_the_last_reason():
    losses = [fact for n in (1, 2, 3) for fact in (e.FoldStarted("a", n), e.FoldLost("a", n, f"reason {n}"))]
    ledger = Ledger.replay([*dataset(), folds(["a"]), *losses])

    expected = FailFold("a", Stage.TRAIN, "given up after it was lost 3 times, last: reason 3")
    assert decide(ledger, max_attempts=3) == [expected]


def test_a_loss_that_is_nobodys_fault_does_not_count():
    losses = [f for n in (1, 2, 3) for f in (e.FoldStarted("a", n), e.FoldLost("a", n, "full", counted=False))]
    ledger = Ledger.replay([*dataset(), folds(["a"]), *losses])

    assert decide(ledger, max_attempts=3) == [StartFold("a", 4)]


def test_a_fold_waits_for_its_dataset_and_its_split():
    accepted, split = dataset()

    assert decide(Ledger.replay([folds(["a"])])) == []
    assert decide(Ledger.replay([folds(["a"]), accepted])) == [SplitDataset("iris")]
    assert decide(Ledger.replay([folds(["a"]), accepted, split])) == [StartFold("a", 1)]


def test_a_fold_waits_for_its_submission():
    alone = folds(["a"], submission="24", files=False)

    assert decide(Ledger.replay([*dataset(), alone])) == []
    assert decide(Ledger.replay([*dataset(), alone, folds(["b"], submission="24")])) == [StartFold("a", 1)]


def test_a_fold_of_another_users_submission_fails():
    alone = folds(["a"], submission="24", files=False, owner=BOB)
    ledger = Ledger.replay([*dataset(), alone, folds(["b"], submission="24")])

    reason = "submission 24 belongs to another user"
    assert FailFold("a", Stage.DATA, reason) in decide(ledger)


def test_a_fold_beyond_the_training_rows_fails_once_the_split_is_known():
    accepted, split = dataset(n_train=75)
    ledger = Ledger.replay([folds(["a"], max_index=75), accepted, split])

    (decision,) = decide(ledger)
    assert isinstance(decision, FailFold)
    assert "75 training rows (0 to 74)" in decision.message


def test_folds_of_a_dataset_whose_split_failed_say_so():
    accepted, _ = dataset()
    ledger = Ledger.replay([folds(["a"]), accepted, e.DatasetSplitFailed("iris", SPLIT, "no column y")])

    assert decide(ledger) == [FailFold("a", Stage.DATA, "the split of dataset iris failed: no column y")]


def test_an_ended_fold_is_published_once():
    ended = [e.FoldStarted("a", 1), e.FoldTested("a", 1, 1, 1, 1)]
    ledger = Ledger.replay([*dataset(), folds(["a"]), *ended])

    assert decide(ledger) == [PublishFold("a", 1)]
    ledger.apply(e.FoldPublished("a", 1), sequence=ledger.sequence + 1, at=9.0)
    assert decide(ledger) == []


def test_what_is_underway_is_not_decided_again():
    accepted, _ = dataset()
    capacity = Capacity({}, underway=frozenset({SplitDataset("iris")}))

    assert plan(Ledger.replay([accepted]), 1.0, policy=policy(), capacity=capacity) == []


def test_a_forced_fold_stops_its_running_attempt_and_runs_anew():
    again = folds(["a"], force=("submission_fold",))
    ledger = Ledger.replay([*dataset(), folds(["a"]), e.FoldStarted("a", 1), again])

    assert decide(ledger) == [StopAttempt("a", 1), StartFold("a", 2)]
    ledger.apply(e.FoldLost("a", 1, "stopped"), sequence=ledger.sequence + 1, at=9.0)
    assert decide(ledger) == [StartFold("a", 2)]
    assert ledger.folds["a"].lost == 0


def test_folds_by_a_splitter_are_generated_once_the_dataset_is_split():
    accepted, split = dataset()
    cv = e.FoldsAccepted(
        bundle(7), ALICE, "24", "iris", "store/f", ("classifier.py",), "c", "", (), L, (), e.CvSpec("KFold", {})
    )

    assert decide(Ledger.replay([cv])) == []
    assert decide(Ledger.replay([cv, accepted, split])) == [GenerateFolds(7)]


def test_the_order_shown_is_the_order_in_which_folds_start():
    facts = [
        *dataset(), folds(["a1", "a2", "a3"]), folds(["b1"], owner=BOB), folds(["h1", "h2"], priority=H, owner=BOB),
    ]  # fmt: skip

    shown = [fold.id for fold in order(Ledger.replay(facts), 100.0, policy=policy())]

    assert shown == run_all(Ledger.replay(facts))


@pytest.mark.parametrize("slots", [1, 2, 3])
@given(data=st.data())
def test_every_fold_ends_and_no_limit_is_ever_exceeded(slots: int, data: st.DataObject):
    specs = data.draw(st.lists(st.tuples(st.sampled_from([ALICE, BOB]), st.sampled_from([H, L])), max_size=12))
    facts = [folds([f"f{n}"], owner=owner, priority=priority) for n, (owner, priority) in enumerate(specs)]
    ledger = Ledger.replay([*dataset(), *facts])
    running: dict[str, int] = {}
    for _ in range(200):
        capacity = Capacity({p: sum(ledger.folds[f].priority is p for f in running) for p in Priority})
        for decision in plan(ledger, 50.0, policy=policy(slots), capacity=capacity):
            if isinstance(decision, StartFold):
                ledger.apply(e.FoldStarted(decision.fold, decision.attempt), sequence=ledger.sequence + 1, at=50.0)
                assert decision.fold not in running
                running[decision.fold] = decision.attempt
        assert len(running) <= slots
        if not running:
            break
        ending = data.draw(st.sampled_from(sorted(running)))
        attempt = running.pop(ending)
        lost = data.draw(st.booleans()) and attempt < 3
        fact = e.FoldLost(ending, attempt, "lost") if lost else e.FoldTested(ending, attempt, 1, 1, 1)
        ledger.apply(fact, sequence=ledger.sequence + 1, at=50.0)

    assert all(fold.state is FoldState.TESTED for fold in ledger.folds.values())
    assert sum(ledger.counts.get("iris", {}).values()) == len(specs)
