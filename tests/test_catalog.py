"""The log: what is committed is read back, what is torn is cut and kept, all else is refused."""

from __future__ import annotations

import json
import typing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datarun_daemon.core import events as e
from datarun_daemon.core.errors import CatalogCorrupt, Problem
from datarun_daemon.core.model import BundleId, BundleKind, Priority, Split, Stage
from datarun_daemon.spool.catalog import Catalog, read

BUNDLE = BundleId(BundleKind.FOLDS, "team_a", 7, "sig")
FACTS: list[e.Event] = [
    e.DaemonStarted("1", "host"),
    e.DatasetAccepted(
        BUNDLE, "iris", 1, 1000, "d", "store/x", "species", ("classifier",), "iris.csv", Split(0.5, 1)
    ),
    e.SplitRequested(BUNDLE, 1000, "iris", Split(0.25)),
    e.SplitRequested(BUNDLE, 1000, "iris", Split(None), force=True),
    e.DatasetSplit("iris", Split(0.5), 75, 75, "prepared"),
    e.DatasetSplitFailed("iris", Split(0.5), "no column « species »\n\x1b[31m"),
    e.FoldsAccepted(
        BUNDLE, 1000, "24", "iris", "store/f", ("classifier.py",), "c", "i.npy",
        (e.FoldRow("11", Priority.HIGH, 0, 60, 15, 74),), Priority.LOW, ("submission_fold",),
        e.CvSpec("ShuffleSplit", {"n_splits": 8, "test_size": 0.2}),
    ),
    e.FoldsGenerated(7, "i.npy", (e.FoldRow("24-0", Priority.LOW, 0, 60, 15, 74),)),
    e.FoldsNotGenerated(7, "no such splitter"),
    e.BundleRejected(BUNDLE, 1000, (Problem("name", "'x'", "y"),)),
    e.BundlesCleared((7, 8)),
    e.FoldStarted("11", 1),
    e.FoldTrained("11", 1, 0.5),
    e.FoldValidated("11", 1, 0.25),
    e.FoldTested("11", 1, 0.5, 0.25, 0.125),
    e.FoldEndedUntested("11", 1, 0.5, 0.25),
    e.FoldFailed("11", 1, Stage.TRAIN, "boom"),
    e.FoldLost("11", 1, "power"),
    e.FoldCancelled("11", 1),
    e.PredictionsRequested(BUNDLE, "1000/alice", ("11",), ("12",)),
    e.PredictionsDelivered(7),
    e.CancelRequested(BUNDLE, 1000, ("11",)),
    e.PriorityRequested(BUNDLE, 1000, ("11",), Priority.HIGH),
    e.RerunRequested(BUNDLE, 1000, ("11",)),
    e.FoldPublished("11", 1),
    e.FoldTaken("11", 1),
]  # fmt: skip


def write(path: Path, facts: list[e.Event]) -> None:
    catalog = Catalog(path)
    list(catalog.replay())
    catalog.append(facts, at=12.5)
    catalog.close()


def facts_in(path: Path) -> list[e.Event]:
    catalog = Catalog(path)
    try:
        return [entry.fact for entry in catalog.replay()]
    finally:
        catalog.close()


def test_every_kind_of_event_is_read_back_as_it_was_written(tmp_path: Path):
    assert {type(fact) for fact in FACTS} == set(typing.get_args(e.Event))

    write(tmp_path / "catalog.jsonl", FACTS)

    assert facts_in(tmp_path / "catalog.jsonl") == FACTS


def test_a_line_is_plain_json_with_its_number(tmp_path: Path):
    write(tmp_path / "c", FACTS)

    lines = [json.loads(line) for line in (tmp_path / "c").read_text().splitlines()]

    assert [line["seq"] for line in lines] == list(range(1, len(FACTS) + 1))
    assert lines[11] == {"v": 1, "seq": 12, "at": 12.5, "event": "FoldStarted", "data": {"fold": "11", "attempt": 1}}


def test_numbers_go_on_after_a_restart(tmp_path: Path):
    write(tmp_path / "c", FACTS[:3])
    write(tmp_path / "c", FACTS[3:5])

    assert [entry.sequence for entry, _ in read(tmp_path / "c")] == [1, 2, 3, 4, 5]


def test_a_catalog_cut_at_any_byte_gives_the_whole_lines_and_keeps_the_rest_aside(tmp_path: Path):
    write(tmp_path / "whole", FACTS[:6])
    whole = (tmp_path / "whole").read_bytes()
    for length in range(len(whole)):
        folder = tmp_path / str(length)
        folder.mkdir()
        path = folder / "catalog.jsonl"
        path.write_bytes(whole[:length])
        complete = whole[:length].count(b"\n")
        committed = whole[: whole[:length].rfind(b"\n") + 1]

        assert facts_in(path) == FACTS[:complete]
        assert path.read_bytes() == committed
        kept = [file.read_bytes() for file in folder.glob("*.torn.*")]
        assert kept == ([whole[len(committed) : length]] if length > len(committed) else [])


@settings(max_examples=300)
@given(data=st.data())
def test_a_damaged_byte_is_refused_naming_its_line_or_changes_no_number(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
):
    folder = tmp_path_factory.mktemp("damaged")
    path = folder / "c"
    write(path, FACTS)
    raw = bytearray(path.read_bytes())
    where = data.draw(st.integers(0, len(raw) - 2))
    raw[where] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)

    refusal = ""
    numbers = []
    try:
        numbers = [entry.sequence for entry, _ in read(path)]
    except CatalogCorrupt as error:
        refusal = str(error)

    assert f"{path}, line " in refusal or numbers == list(range(1, len(FACTS) + 1))
    assert path.read_bytes() == bytes(raw)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"\n", "line 2"),
        (b"not json\n", "line 2"),
        (b'{"v":1,"seq":3,"at":1.0,"event":"FoldStarted","data":{"fold":"1","attempt":1}}\n', "number is 3 after 1"),
        (b'{"v":1,"seq":1,"at":1.0,"event":"FoldStarted","data":{"fold":"1","attempt":1}}\n', "number is 1 after 1"),
        (b'{"v":9,"seq":2,"at":1.0,"event":"FoldStarted","data":{"fold":"1","attempt":1}}\n', "version 9"),
        (b'{"v":1,"seq":2,"at":1.0,"event":"FoldSold","data":{}}\n', "no event 'FoldSold'"),
        (b'{"v":1,"seq":2,"at":1.0,"event":"FoldStarted","data":{"fold":"1"}}\n', "attempt"),
        (b"\x00" * 40 + b"\n", "line 2"),
    ],
)
def test_a_bad_line_in_the_middle_is_refused_and_nothing_is_changed(tmp_path: Path, line: bytes, reason: str):
    path = tmp_path / "c"
    write(path, FACTS[:1])
    good = b'{"v":1,"seq":3,"at":1.0,"event":"FoldStarted","data":{"fold":"1","attempt":1}}\n'
    raw = path.read_bytes() + line + good
    path.write_bytes(raw)

    with pytest.raises(CatalogCorrupt, match=reason):
        facts_in(path)

    assert path.read_bytes() == raw
