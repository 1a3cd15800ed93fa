"""Results at rest: whole or not there, published once, and gone when they are taken."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from datarun_daemon.spool.layout import Spool
from datarun_daemon.spool.outbox import Outbox, ResultDamaged, ResultPlace

PLACE = ResultPlace("iris", "24", "11", 1)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.create(tmp_path / "spool")


def a_run(spool: Spool, *, log: bytes = b"hello\n") -> Path:
    out = spool.run("11", 1) / "out"
    out.mkdir(parents=True)
    (out / "log.txt").write_bytes(log)
    files = {"log.txt": {"bytes": len(log), "sha256": hashlib.sha256(log).hexdigest()}}
    (out / "result.json").write_text(json.dumps({"state": "TESTED", "files": files}))
    return out


def test_a_published_result_holds_what_the_run_left_and_the_facts(spool: Spool):
    outbox = Outbox(spool)
    outbox.archive_run(PLACE, a_run(spool), {"id": 11})
    outbox.stage([PLACE])

    assert outbox.publish(PLACE)

    folder = spool.root / "outbox/iris/24/11"
    assert (folder / "log.txt").read_bytes() == b"hello\n"
    result = json.loads((folder / "result.json").read_text())
    assert (result["state"], result["id"]) == ("TESTED", 11)


def test_nothing_is_in_the_outbox_before_publication(spool: Spool):
    outbox = Outbox(spool)
    outbox.archive_run(PLACE, a_run(spool), {})
    outbox.stage([PLACE])

    assert not list((spool.root / "outbox").glob("[!.]*/*"))


def test_publishing_again_changes_nothing(spool: Spool):
    outbox = Outbox(spool)
    outbox.archive_run(PLACE, a_run(spool), {})
    outbox.stage([PLACE])
    outbox.publish(PLACE)

    assert not outbox.publish(PLACE)


def test_a_newer_attempt_replaces_what_was_not_taken(spool: Spool):
    outbox = Outbox(spool)
    for attempt, log in ((1, b"old\n"), (2, b"new\n")):
        place = ResultPlace("iris", "24", "11", attempt)
        out = a_run(spool, log=log)
        outbox.archive_run(place, out, {})
        outbox.stage([place])
        outbox.publish(place)
        out.parent.rmdir()

    assert (spool.root / "outbox/iris/24/11/log.txt").read_bytes() == b"new\n"
    archived = sorted(path.read_bytes() for path in spool.results.rglob("log.txt"))
    assert archived == [b"new\n", b"old\n"]


@pytest.mark.parametrize("damage", ["truncated", "missing", "extra", "torn_json", "link", "fifo"])
def test_a_damaged_run_is_refused(spool: Spool, damage: str):
    out = a_run(spool)
    log = out / "log.txt"
    if damage == "truncated":
        log.write_bytes(b"hel")
    elif damage == "missing":
        log.unlink()
    elif damage == "extra":
        (out / "more.bin").write_bytes(b"x")
    elif damage == "torn_json":
        (out / "result.json").write_text('{"state": "TES')
    elif damage == "link":
        log.rename(out.parent / "elsewhere")
        log.symlink_to(out.parent / "elsewhere")
    else:
        log.unlink()
        import os

        os.mkfifo(log)

    with pytest.raises(ResultDamaged):
        Outbox(spool).archive_run(PLACE, out, {})


def test_a_result_archived_before_a_crash_is_found_in_the_archive(spool: Spool):
    out = a_run(spool)
    Outbox(spool).archive_run(PLACE, out, {"id": 11})

    again = Outbox(spool).archive_run(PLACE, out, {"id": 11})

    assert again["state"] == "TESTED"


def test_after_a_crash_what_was_announced_is_published_and_the_rest_is_removed(spool: Spool):
    outbox = Outbox(spool)
    other = ResultPlace("iris", "24", "12", 1)
    outbox.archive_run(PLACE, a_run(spool), {})
    outbox.archive_without_run(other, {"state": "ERROR", "files": {}}, "why\n")
    outbox.stage([PLACE, other])
    assert outbox.staged_attempts() == {("11", 1), ("12", 1)}

    Outbox(spool).discard_stale([PLACE])

    assert (spool.root / "outbox/iris/24/11/result.json").is_file()
    assert not (spool.root / "outbox/iris/24/12").exists()
    assert Outbox(spool).staged_attempts() == set()


def test_a_result_is_taken_when_its_folder_or_its_result_json_is_gone_and_empty_folders_are_pruned(spool: Spool):
    outbox = Outbox(spool)
    outbox.archive_run(PLACE, a_run(spool), {})
    outbox.stage([PLACE])
    outbox.publish(PLACE)
    assert outbox.taken([PLACE]) == []

    for file in (spool.root / "outbox/iris/24/11").iterdir():
        file.unlink()

    assert outbox.taken([PLACE]) == [PLACE]
    assert not (spool.root / "outbox/iris").exists()


def test_a_file_left_behind_by_who_took_the_result_is_not_removed(spool: Spool):
    outbox = Outbox(spool)
    outbox.archive_run(PLACE, a_run(spool), {})
    outbox.stage([PLACE])
    outbox.publish(PLACE)
    (spool.root / "outbox/iris/24/11/result.json").unlink()

    assert outbox.taken([PLACE]) == [PLACE]
    assert (spool.root / "outbox/iris/24/11/log.txt").is_file()
