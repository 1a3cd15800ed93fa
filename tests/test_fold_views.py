"""status/: what it shows is what the ledger knows, written when it changes, and made anew when it is gone."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import time
import zlib
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datarun_daemon import disk
from datarun_daemon import view_writer as writing
from datarun_daemon.core import events as e
from datarun_daemon.core.ledger import Ledger
from datarun_daemon.core.model import BundleId, BundleKind, Owner, Priority, Split, Stage
from datarun_daemon.core.scheduler import Policy, order
from datarun_daemon.registrar import waits_for
from datarun_daemon.spool.indices import FoldPart, IndexValues, pack_indices
from datarun_daemon.spool.layout import Spool
from datarun_daemon.status_views import StatusViews
from datarun_daemon.view_writer import Lost, NotWritten, Report
from datarun_daemon.wakeups import Wakeups
from tests.bundles import fold_bundle, iris_bundle
from tests.daemon_process import RunningDaemon, wait_for

POLICY = Policy(2, dict.fromkeys(Priority, 2), dict.fromkeys(Priority, 1 << 30), 4 << 30)
TRAIN, TEST = [5, 0, 3], [4, 1]
SPLIT = Split(0.2, 7)


class Loop:
    """What the daemon's loop does for the views, over a ledger to which a test tells facts."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.facts: list[e.Event] = []
        self.reports: list[Report] = []
        self.running = False

    def start(self) -> Loop:
        """As a daemon starts: recall, replay, go on."""
        self.ledger = Ledger()
        self.wakeups = Wakeups()
        self.views = StatusViews(self.spool, self.ledger, waits_for, self.wakeups.post)
        shown = self.views.recall()
        for fact in self.facts:
            self._apply(fact)
            if self.ledger.sequence == shown:
                self.ledger.touched.clear()
                self.ledger.touched_datasets.clear()
        self.views.start()
        self.running = True
        return self

    def tell(self, *facts: e.Event) -> None:
        for fact in facts:
            self.facts.append(fact)
            self._apply(fact)

    def turn(self) -> None:
        for report in self.wakeups.take():
            assert isinstance(report, Report)
            self.reports.append(report)
            self.views.take(report)
        self.views.look(now=2e9, policy=POLICY, every_seconds=0.0)

    def turn_until(self, holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < deadline, self.reports
            self.turn()
            time.sleep(0.002)

    def show(self, *facts: e.Event) -> None:
        """The facts are in the files."""
        self.tell(*facts)
        self.turn_until(lambda: self.views.sequence == self.ledger.sequence)

    def stop(self) -> None:
        if self.running:
            self.running = False
            self.views.stop(now=2e9, policy=POLICY)
            self.reports += self.wakeups.take()  # type: ignore[arg-type]  # nothing else is posted

    def _apply(self, fact: e.Event) -> None:
        self.ledger.apply(fact, sequence=self.ledger.sequence + 1, at=float(self.ledger.sequence + 1))

    def datasets(self) -> list[dict[str, Any]]:
        return json.loads(self.spool.datasets_file.read_text())  # type: ignore[no-any-return]

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.spool.folds_file.read_text().splitlines()]

    def line(self, fold: object) -> dict[str, Any]:
        (line,) = [line for line in self.lines() if line["id"] == fold]
        return line

    def fold(self, fold: object) -> dict[str, Any]:
        return json.loads(self.spool.fold_file(str(fold)).read_text())  # type: ignore[no-any-return]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool.create(tmp_path / "spool")
    folds = [FoldPart("x", IndexValues(array("q", TRAIN)), IndexValues(array("q", TEST)), Priority.LOW)]
    pack_indices(folds, tmp_path, spool.store / "indices.npy")
    return spool


@pytest.fixture
def loop(spool: Spool):
    loop = Loop(spool).start()
    yield loop
    loop.stop()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rest between two writings, and quick to try again."""
    monkeypatch.setattr(writing, "_RESTS", 0)
    monkeypatch.setattr(writing, "_BYTES_A_SECOND", 1 << 60)
    monkeypatch.setattr(writing, "_CHECK_SECONDS", 0.05)
    monkeypatch.setattr(writing, "RETRY_SECONDS", 0.05)


def dataset(name: str = "iris", *, split: Split | None = SPLIT, **fields: Any) -> e.DatasetAccepted:
    bundle = BundleId(BundleKind.DATASETS, name, 1, "")
    return e.DatasetAccepted(
        bundle, name, 1, 1000, "abc", "store/d", "species", ("feature_extractor", "classifier"), f"{name}.csv",
        split=split, **fields,
    )  # fmt: skip


def split(name: str = "iris") -> e.DatasetSplit:
    return e.DatasetSplit(name, SPLIT, 120, 30, "store/prepared")


def folds(*ids: str, owner: Owner = 1000, submission: str = "24", priority: Priority = Priority.LOW) -> e.FoldsAccepted:
    rows = tuple(e.FoldRow(fold, priority, 0, len(TRAIN), len(TEST), 5) for fold in ids)
    bundle = BundleId(BundleKind.FOLDS, submission, 2, "")
    return e.FoldsAccepted(
        bundle, owner, submission, "iris", "store/f", ("classifier.py",), "code", "store/indices.npy", rows, priority
    )


def run_of(fold: str) -> tuple[e.Event, ...]:
    return e.FoldStarted(fold, 1), e.FoldTested(fold, 1, 1.0, 2.0, 3.0), e.FoldPublished(fold, 1)


def rows(text: str) -> list[int]:
    values = array("q")
    values.frombytes(zlib.decompress(base64.b64decode(text)))
    return values.tolist()


def test_a_spool_without_anything_has_empty_views(loop: Loop):
    loop.turn_until(loop.spool.views_stamp.exists)

    assert ([], []) == (loop.datasets(), loop.lines())


def test_a_dataset_is_shown_with_its_split_and_its_folds(loop: Loop):
    loop.show(dataset(), split(), folds("11", "12", "13"), *run_of("11"), e.FoldStarted("12", 1))

    assert loop.datasets() == [
        {
            "name": "iris", "id": 1, "state": "SPLIT", "reason": None, "target_column": "species",
            "workflow_elements": ["feature_extractor", "classifier"], "format": "standard",
            "n_train": 120, "n_test": 30, "split": {"held_out_test": 0.2, "random_state": 7},
            "owner_uid": 1000, "owner": 1000, "accepted_at": "1970-01-01T00:00:01.000000Z", "dataset_sha256": "abc",
            "folds": {"TODO": 1, "RUNNING": 1, "TESTED": 1}, "new": 1,
        }
    ]  # fmt: skip


@pytest.mark.parametrize(("given", "shown"), [(None, None), (Split(None), "custom")])
def test_a_dataset_may_have_no_split_or_its_own(loop: Loop, given: Split | None, shown: object):
    loop.show(dataset(split=given, specific="specific.py", format="custom"))

    (found,) = loop.datasets()
    assert ("custom", shown) == (found["format"], found["split"])


def test_why_a_split_failed_is_shown(loop: Loop):
    loop.show(dataset(), e.DatasetSplitFailed("iris", Split(0.2), "no column species"))

    (found,) = loop.datasets()
    assert ("FAILED", "no column species") == (found["state"], found["reason"])


def test_folds_stand_in_the_order_of_acceptance_with_what_they_wait_for(loop: Loop):
    loop.show(dataset(split=None), folds("b", "a"))
    before = loop.lines()
    loop.show(split(), folds("0", submission="t"), e.FoldStarted("b", 1))

    blocked = "dataset iris to be split (a split request is needed)"
    assert [("b", None, blocked), ("a", None, blocked)] == [(x["id"], x["position"], x["waits_for"]) for x in before]
    assert loop.lines() == [
        {"id": "b", "submission": 24, "dataset": "iris", "state": "RUNNING", "new": False, "priority": "L",
         "waits_for": None, "position": None},
        {"id": "a", "submission": 24, "dataset": "iris", "state": "TODO", "new": False, "priority": "L",
         "waits_for": "a slot", "position": 1},
        {"id": 0, "submission": "t", "dataset": "iris", "state": "TODO", "new": False, "priority": "L",
         "waits_for": "a slot", "position": 2},
    ]  # fmt: skip


def test_what_a_fold_waits_for_changes_with_its_submission_and_dataset(loop: Loop):
    bundle = BundleId(BundleKind.FOLDS, "early", 3, "")
    rows = (e.FoldRow("11", Priority.LOW, 0, len(TRAIN), len(TEST), 5),)
    early = e.FoldsAccepted(bundle, 1000, "24", None, "store/e", (), "", "store/indices.npy", rows, Priority.LOW)
    request = e.SplitRequested(bundle, 1000, "iris", SPLIT)
    seen = []
    for fact in (early, folds("12"), dataset(split=None), request, split(), request):
        loop.show(fact)
        assert loop.line(11)["waits_for"] == loop.fold(11)["waits_for"]
        seen.append(loop.line(11)["waits_for"])

    assert seen == [
        "submission 24 (not here yet)",
        "dataset iris (not here yet)",
        "dataset iris to be split (a split request is needed)",
        "dataset iris to be split",
        "a slot",
        "dataset iris to be split",
    ]


def test_positions_are_the_schedulers_order(loop: Loop):
    many = [f"x{k}" for k in range(7)]
    loop.show(dataset(), split(), folds(*many), folds("y", "z", submission="s", owner="1001/ann"))
    loop.show(folds("h", submission="h", priority=Priority.HIGH), e.FoldStarted("h", 1), e.FoldStarted("x0", 1))

    expected = {fold.id: position for position, fold in enumerate(order(loop.ledger, 2e9, policy=POLICY), 1)}
    assert expected == {line["id"]: line["position"] for line in loop.lines() if line["position"]}


def test_only_the_first_of_the_queue_have_a_position(loop: Loop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("datarun_daemon.status_views._POSITIONS", 2)
    loop.show(dataset(), split(), folds("a", "b", "c"))

    assert [1, 2, None] == [line["position"] for line in loop.lines()]


def test_everything_about_a_fold(loop: Loop):
    loop.show(dataset(), split(), folds("11", owner="1000/ann"), *run_of("11"))

    found = loop.fold(11)
    assert (TRAIN, TEST) == (rows(found.pop("train_is")), rows(found.pop("test_is")))
    assert found == {
        "id": 11, "submission": 24, "dataset": "iris", "state": "TESTED", "new": True, "priority": "L",
        "waits_for": None, "owner_uid": 1000, "owner": "1000/ann", "sequence": 3,
        "accepted_at": "1970-01-01T00:00:03.000000Z",
        "attempt": 1, "lost": 0, "started_at": "1970-01-01T00:00:04.000000Z",
        "ended_at": "1970-01-01T00:00:05.000000Z", "stage": None, "message": None, "submission_sha256": "code",
        "published": True, "result": "outbox/iris/24/11", "archive": "store/results/iris/24/11/1",
        "n_train_is": 3, "n_test_is": 2,
    }  # fmt: skip


def test_an_ended_fold_runs_until_its_result_is_published_and_is_new_until_it_is_taken(loop: Loop):
    started, ended, published = run_of("11")
    seen = []
    for facts in ([dataset(), split(), folds("11"), started, ended], [published], [e.FoldTaken("11", 1)]):
        loop.show(*facts)
        found = loop.fold(11)
        seen.append((found["state"], found["new"], found["result"], loop.line(11)["state"], loop.line(11)["new"]))

    assert seen == [
        ("RUNNING", False, None, "RUNNING", False),
        ("TESTED", True, "outbox/iris/24/11", "TESTED", True),
        ("TESTED", False, None, "TESTED", False),
    ]


def test_an_error_is_shown_with_its_stage(loop: Loop):
    facts = e.FoldStarted("11", 1), e.FoldFailed("11", 1, Stage.TRAIN, "bad\nluck"), e.FoldPublished("11", 1)
    loop.show(dataset(), split(), folds("11"), *facts)

    assert ("ERROR", "train", "bad\nluck") == tuple(loop.fold(11)[name] for name in ("state", "stage", "message"))


def test_a_fold_that_is_forced_keeps_its_line_and_is_as_new(loop: Loop):
    loop.show(dataset(), split(), folds("11", "12"), *run_of("11"))
    loop.show(folds("11", priority=Priority.HIGH))

    assert [(11, "TODO", "H"), (12, "TODO", "L")] == [(x["id"], x["state"], x["priority"]) for x in loop.lines()]
    assert (1, None, False) == tuple(loop.fold(11)[name] for name in ("attempt", "archive", "published"))


@pytest.mark.parametrize("fold", ["9" * 50, "007", "1e5", "a.b-c_"])
def test_an_id_is_a_number_only_if_it_reads_back_as_it_was(loop: Loop, fold: str):
    loop.show(dataset(), split(), folds(fold))

    assert (fold, fold) == (loop.line(fold)["id"], loop.fold(fold)["id"])


def test_row_numbers_that_the_store_lost_are_null(loop: Loop):
    (loop.spool.store / "indices.npy").unlink()

    loop.show(dataset(), split(), folds("11"))

    assert (None, None, 3) == tuple(loop.fold(11)[name] for name in ("train_is", "test_is", "n_train_is"))


def test_only_files_of_folds_that_changed_are_written(loop: Loop):
    loop.show(dataset(), split(), folds("11", "12"))
    files = {fold: loop.spool.fold_file(fold).stat().st_ino for fold in ("11", "12")}
    loop.show(e.FoldStarted("11", 1))

    assert {"11"} == {fold for fold, inode in files.items() if loop.spool.fold_file(fold).stat().st_ino != inode}


def test_the_datasets_are_not_written_if_only_folds_changed(loop: Loop):
    loop.show(dataset(), split(), folds("11"))
    inode = loop.spool.datasets_file.stat().st_ino
    loop.show(e.PriorityRequested(BundleId(BundleKind.REQUESTS, "r", 4, ""), 1000, ("11",), Priority.HIGH))

    assert ("H", inode) == (loop.line(11)["priority"], loop.spool.datasets_file.stat().st_ino)


def test_nothing_is_written_while_nothing_changes(loop: Loop):
    loop.show(dataset(), split(), folds("11"))
    before = loop.spool.views_stamp.stat().st_mtime_ns, loop.spool.folds_file.stat().st_mtime_ns
    loop.show(e.DaemonStarted("1", "host"))
    for _ in range(50):
        loop.turn()
        time.sleep(0.005)

    assert before == (loop.spool.views_stamp.stat().st_mtime_ns, loop.spool.folds_file.stat().st_mtime_ns)


def test_lines_of_many_pages_are_right_wherever_folds_change(loop: Loop, monkeypatch: pytest.MonkeyPatch):
    for module in ("datarun_daemon.spool.fold_list", "datarun_daemon.status_views"):
        monkeypatch.setattr(f"{module}.PAGE_FOLDS", 4)
    monkeypatch.setattr("datarun_daemon.status_views._FOLDS_A_TURN", 3)
    monkeypatch.setattr("datarun_daemon.status_views._POSITIONS", 5)
    ids = [f"f{k}" for k in range(30)]
    loop.show(dataset(), split(), folds(*ids[:10]))
    loop.show(folds(*ids[10:]), *run_of("f0"))
    for fold in ("f9", "f3", "f4", "f29"):
        loop.show(*run_of(fold))
        assert ids == [line["id"] for line in loop.lines()]
    loop.show(folds("g0", "g1", "g2"), *run_of("f28"))

    assert [*ids, "g0", "g1", "g2"] == [line["id"] for line in loop.lines()]
    assert {"f0", "f9", "f3", "f4", "f29", "f28"} == {line["id"] for line in loop.lines() if line["state"] == "TESTED"}
    expected = [fold.id for fold in order(loop.ledger, 2e9, policy=POLICY)][:5]
    waiting = sorted((line["position"], line["id"]) for line in loop.lines() if line["position"])
    assert list(enumerate(expected, 1)) == waiting


def test_a_restart_goes_on_from_the_files(loop: Loop):
    loop.show(dataset(), split(), folds("11", "12"))
    loop.stop()
    inode = loop.spool.fold_file("12").stat().st_ino
    late = range(20, 29)
    loop.facts += [*run_of("11"), folds(*map(str, late), submission="s")]

    loop.start().show()

    assert inode == loop.spool.fold_file("12").stat().st_ino
    assert [(11, "TESTED", None), (12, "TODO", 1), *((fold, "TODO", fold - 18) for fold in late)] == [
        (line["id"], line["state"], line["position"]) for line in loop.lines()
    ]
    assert ("TESTED", "TODO") == (loop.fold(11)["state"], loop.fold(20)["state"])
    assert {"TODO": 10, "TESTED": 1} == loop.datasets()[0]["folds"]


def test_positions_from_before_a_restart_are_taken_back(loop: Loop, monkeypatch: pytest.MonkeyPatch):
    for module in ("datarun_daemon.spool.fold_list", "datarun_daemon.status_views"):
        monkeypatch.setattr(f"{module}.PAGE_FOLDS", 1)
    monkeypatch.setattr("datarun_daemon.status_views._POSITIONS", 1)
    loop.show(dataset(), split(), folds("11"))
    before = loop.line(11)["position"]
    loop.stop()
    loop.facts.append(folds("12", submission="s", priority=Priority.HIGH))

    loop.start().show()

    assert (1, None, 1) == (before, loop.line(11)["position"], loop.line(12)["position"])


def test_a_stop_leaves_the_files_current(loop: Loop):
    loop.show(dataset(), split(), folds("11", "12"))
    loop.tell(*run_of("11"))
    loop.stop()

    assert ["TESTED", "TODO"] == [line["state"] for line in loop.lines()]
    assert len(loop.facts) == json.loads(loop.spool.views_stamp.read_bytes())["sequence"]


def test_a_catalog_from_a_backup_has_all_written_anew(loop: Loop):
    loop.show(dataset(), split(), folds("11"), folds("12", submission="s"))
    loop.stop()
    loop.facts = loop.facts[:3]

    loop.start().turn_until(lambda: not loop.spool.fold_file("12").exists())

    assert [11] == [line["id"] for line in loop.lines()]


@pytest.mark.parametrize("damage", ["boot", "torn", "gone"])
def test_files_from_before_a_power_cut_are_not_relied_on(loop: Loop, damage: str):
    loop.show(dataset(), split(), folds("11"))
    loop.stop()
    stamp = loop.spool.views_stamp
    content = {**json.loads(stamp.read_bytes()), "boot_id": "another"}
    stamp.write_bytes(json.dumps(content).encode() if damage == "boot" else b"{")
    if damage == "gone":
        stamp.unlink()
    loop.spool.fold_file("11").write_bytes(b"")

    loop.start().show()

    assert "TODO" == loop.fold(11)["state"]


@pytest.mark.parametrize("what", ["status", "folds", "folds.jsonl", "datasets.json"])
def test_what_is_removed_is_written_anew_though_nothing_happens(loop: Loop, what: str):
    loop.show(dataset(), split(), folds("11", "12"))
    place = loop.spool.root / what if what == "status" else loop.spool.status / what
    shutil.rmtree(place) if place.is_dir() else place.unlink()

    loop.turn_until(lambda: any(isinstance(report, Lost) for report in loop.reports))
    loop.show()

    assert [11, 12] == [line["id"] for line in loop.lines()]
    assert ("iris", "TODO") == (loop.datasets()[0]["name"], loop.fold(12)["state"])


def test_a_list_that_somebody_edited_is_written_anew(loop: Loop):
    loop.show(dataset(), split(), folds("11", "12"))
    loop.spool.folds_file.write_text("nonsense\n")

    loop.show(e.FoldStarted("11", 1))
    loop.turn_until(lambda: any(isinstance(report, Lost) for report in loop.reports))
    loop.show()

    assert ["RUNNING", "TODO"] == [line["state"] for line in loop.lines()]


@pytest.mark.parametrize("full", ["11.json", "folds.jsonl", "datasets.json", ".views.json"])
def test_what_a_full_disk_refused_is_written_once_there_is_room(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, full: str
):
    loop.show(dataset(), split(), folds("11", "12"))
    mended = disk.writing_atomically

    def refuse(path: Path, **options: Any) -> Any:
        if path.name == full:
            raise OSError(28, os.strerror(28), str(path))
        return mended(path, **options)

    monkeypatch.setattr(disk, "writing_atomically", refuse)
    loop.tell(e.FoldStarted("11", 1))
    loop.turn_until(lambda: any(isinstance(report, NotWritten) for report in loop.reports))
    loop.tell(e.FoldTested("11", 1, 1.0, 2.0, 3.0), e.FoldPublished("11", 1))
    for _ in range(20):
        loop.turn()
    monkeypatch.setattr(disk, "writing_atomically", mended)
    loop.show()

    assert ("TESTED", "TESTED") == (loop.line(11)["state"], loop.fold(11)["state"])
    assert {"TODO": 1, "TESTED": 1} == loop.datasets()[0]["folds"]


def test_an_expensive_list_is_written_less_often_than_the_files_of_folds(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
):
    loop.show(dataset(), split(), folds("11"))
    monkeypatch.setattr(writing, "_BYTES_A_SECOND", 1)
    loop.show(e.FoldStarted("11", 1))
    before = loop.views.sequence
    loop.tell(*run_of("11")[1:])
    loop.turn_until(lambda: loop.fold(11)["state"] == "TESTED")

    assert ("RUNNING", before) == (loop.line(11)["state"], loop.views.sequence)


def last_line(daemon: RunningDaemon) -> int:
    """The number of the catalog's last whole line."""
    return daemon.spool.catalog_file.read_bytes().count(b"\n")


def test_a_daemon_shows_its_folds_and_goes_on_after_a_restart(daemon: RunningDaemon, tmp_path: Path):
    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    daemon.drop(fold_bundle(tmp_path / "team_a", [1, 2], submission=24), "folds")
    for fold in (1, 2):
        daemon.wait_for_result("iris", "24", fold)
    wait_for(lambda: daemon.overview()["sequence"] >= last_line(daemon), "the views to be current")
    inode = daemon.spool.fold_file("1").stat().st_ino
    daemon.stop(number=signal.SIGKILL)
    daemon.start()
    daemon.drop(fold_bundle(tmp_path / "team_b", [3], submission=25), "folds")
    daemon.wait_for_result("iris", "25", 3)
    wait_for(lambda: daemon.overview()["sequence"] >= last_line(daemon), "the views to be current again")

    lines = [json.loads(line) for line in daemon.spool.folds_file.read_text().splitlines()]
    (dataset,) = json.loads(daemon.spool.datasets_file.read_text())
    assert [(1, "TESTED", True), (2, "TESTED", True), (3, "TESTED", True)] == [
        (line["id"], line["state"], line["new"]) for line in lines
    ]
    assert ({"TESTED": 3}, 3) == (dataset["folds"], dataset["new"])
    for fold in (1, 2, 3):
        shown = json.loads(daemon.spool.fold_file(str(fold)).read_text())
        result = json.loads((daemon.spool.root / shown["result"] / "result.json").read_text())
        assert (daemon.spool.root / shown["archive"]).is_dir()
        assert (result["train_is"], result["test_is"]) == (rows(shown["train_is"]), rows(shown["test_is"]))
    assert daemon.spool.fold_file("1").stat().st_ino == inode
    assert daemon.events("status_written_anew") == []


def test_a_daemon_brings_status_back_when_somebody_removed_it(daemon: RunningDaemon, tmp_path: Path):
    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    daemon.drop(fold_bundle(tmp_path / "team_a", [1], submission=24), "folds")
    daemon.wait_for_result("iris", "24", 1)
    spool = daemon.spool
    files = [spool.overview_file, spool.datasets_file, spool.folds_file, spool.fold_file("1")]
    wait_for(lambda: all(file.exists() for file in files), "the views")

    shutil.rmtree(spool.status)

    wait_for(lambda: all(file.exists() for file in files), "the views to come back")
