"""Which fold runs when, seen in the catalog of a real daemon."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.bundles import fold_bundle, iris_bundle, slow
from tests.conftest import StartDaemon
from tests.daemon_process import RunningDaemon, wait_for


@pytest.fixture
def one_slot(make_daemon: StartDaemon, tmp_path: Path) -> RunningDaemon:
    """One slot, which a slow fold holds until its ``go`` is given."""
    daemon = make_daemon(slots=1, scheduling={"high_in_a_row": 3, "low_patience_seconds": 0.001}).start()
    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    daemon.drop(fold_bundle(tmp_path / "first", ["first"], submission="first", code=slow(1.5)), "folds")
    wait_for(lambda: daemon.catalog("FoldStarted"), "the first fold to start")
    return daemon


def started_in_order(daemon: RunningDaemon, number: int) -> list[str]:
    wait_for(lambda: len(daemon.catalog("FoldTested")) >= number + 1, f"{number} folds to end")
    return [line["fold"] for line in daemon.catalog("FoldStarted")][1:]


def test_a_high_fold_dropped_behind_fifty_low_ones_runs_next(one_slot: RunningDaemon, tmp_path: Path):
    low = [f"l{number}" for number in range(50)]
    one_slot.drop(fold_bundle(tmp_path / "low", low, submission="low"), "folds")
    one_slot.wait_for_receipt("folds", "low")
    one_slot.drop(fold_bundle(tmp_path / "high", ["h"], submission="high", priority="H"), "folds")

    assert started_in_order(one_slot, 51) == ["h", *low]


def test_a_low_fold_gets_its_turn_in_a_stream_of_high_ones(one_slot: RunningDaemon, tmp_path: Path):
    one_slot.drop(fold_bundle(tmp_path / "low", ["l"], submission="low"), "folds")
    one_slot.wait_for_receipt("folds", "low")
    high = [f"h{number}" for number in range(8)]
    one_slot.drop(fold_bundle(tmp_path / "high", high, submission="high", priority="H"), "folds")

    assert started_in_order(one_slot, 9).index("l") == 3


@pytest.mark.skipif(os.getuid() != 0, reason="only root can drop bundles as two users")
def test_the_folds_of_two_owners_alternate(one_slot: RunningDaemon, tmp_path: Path):
    for owner, name in ((4001, "a"), (4002, "b")):
        ids = [f"{name}{number}" for number in range(5)]
        one_slot.drop(fold_bundle(tmp_path / name, ids, submission=name), "folds", owner=owner)
        one_slot.wait_for_receipt("folds", name)

    order = started_in_order(one_slot, 10)

    assert [fold[0] for fold in order] == ["a", "b"] * 5
