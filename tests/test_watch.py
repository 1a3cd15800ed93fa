"""What wakes the intake, and what does not; and that a watch that died works again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from datarun_daemon.watch import Watch
from tests.daemon_process import wait_for

#: events that do not come within this time are taken not to come at all
QUIET_SECONDS = 0.8


class Bell:
    """Counts how often it was rung."""

    def __init__(self) -> None:
        self.rings = 0

    def ring(self) -> None:
        self.rings += 1


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, ...]:
    made = tuple(tmp_path / "incoming" / name for name in ("datasets", "folds", "requests"))
    for folder in made:
        folder.mkdir(parents=True)
    return made


@pytest.fixture
def bell() -> Bell:
    return Bell()


@pytest.fixture
def watch(folders: tuple[Path, ...], bell: Bell) -> Iterator[Watch]:
    watch = Watch(folders, bell.ring, "events")
    watch.start()
    yield watch
    watch.stop()


def rings(bell: Bell) -> None:
    wait_for(lambda: bell.rings, "the bell", seconds=10)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_bundle_that_is_made_in_an_incoming_folder_rings(
    folders: tuple[Path, ...], watch: Watch, bell: Bell, which: int
):
    (folders[which] / "team_a").mkdir()

    rings(bell)


def test_a_bundle_that_is_renamed_into_place_rings(folders: tuple[Path, ...], watch: Watch, bell: Bell):
    elsewhere = folders[0].parent / "team_a"
    elsewhere.mkdir()
    assert 0 == bell.rings
    elsewhere.rename(folders[1] / "team_a")

    rings(bell)


def test_a_temporary_that_gets_its_final_name_rings(folders: tuple[Path, ...], watch: Watch, bell: Bell):
    (folders[1] / "team_a.zip.part").write_text("x")
    rings(bell)
    bell.rings = 0
    (folders[1] / "team_a.zip.part").rename(folders[1] / "team_a.zip")

    rings(bell)


def test_an_archive_that_is_closed_after_writing_rings(folders: tuple[Path, ...], watch: Watch, bell: Bell):
    with (folders[1] / "team_a.zip").open("w") as file:
        rings(bell)
        bell.rings = 0
        file.write("x")

    rings(bell)


def test_our_own_claims_and_removals_do_not_ring(folders: tuple[Path, ...], watch: Watch, bell: Bell):
    (folders[1] / "team_a").mkdir()
    rings(bell)
    time.sleep(QUIET_SECONDS)
    bell.rings = 0
    hidden = (folders[1] / "team_a").rename(folders[1] / ".datarun-taken-000000001")
    hidden.rmdir()
    time.sleep(QUIET_SECONDS)

    assert 0 == bell.rings


def test_what_happens_inside_a_bundle_is_not_watched(folders: tuple[Path, ...], watch: Watch, bell: Bell):
    bundle = folders[1] / "team_a"
    bundle.mkdir()
    rings(bell)
    time.sleep(QUIET_SECONDS)
    bell.rings = 0
    (bundle / "classifier.py").write_text("x")
    time.sleep(QUIET_SECONDS)

    assert 0 == bell.rings


def test_a_glance_sees_a_change_for_a_while_and_then_is_calm(folders: tuple[Path, ...], bell: Bell):
    watch = Watch(folders, bell.ring, "events")
    assert watch.glance(100.0)
    assert not watch.glance(101.0)
    (folders[2] / "split.yaml").write_text("x")

    assert (True, True, False) == (watch.glance(102.0), watch.glance(102.02), watch.glance(102.2))


def test_a_glance_at_folders_that_vanished_is_a_change_and_no_error(folders: tuple[Path, ...], bell: Bell):
    watch = Watch(folders, bell.ring, "events")
    watch.glance(100.0)
    folders[1].rmdir()

    assert (True, False) == (watch.glance(101.0), watch.glance(102.0))


def test_polling_looks_at_nothing_and_says_so_at_its_pace(folders: tuple[Path, ...], bell: Bell):
    watch = Watch(folders, bell.ring, "polling", poll_seconds=2.0)
    watch.start()
    for folder in folders:
        folder.rmdir()  # a network drive that has gone

    assert [True, False, False, True] == [watch.glance(now) for now in (100.0, 100.02, 101.9, 102.0)]
    assert [] == watch.tend(100.0)
    watch.stop()


def test_on_a_local_disk_events_are_chosen_and_the_reason_is_told(folders: tuple[Path, ...], bell: Bell):
    watch = Watch(folders, bell.ring)

    assert "events" == watch.mode
    assert "tells of every change" in watch.reason


def test_a_watch_that_works_is_left_alone(folders: tuple[Path, ...], watch: Watch):
    assert [] == watch.tend(100.0)


def test_a_folder_that_was_replaced_is_watched_anew(folders: tuple[Path, ...], watch: Watch, bell: Bell):
    folders[1].rename(folders[1].parent / "away")
    folders[1].mkdir()

    assert [(folders[1], "the folder was replaced")] == [(each.folder, each.reason) for each in watch.tend(100.0)]
    assert [] == watch.tend(200.0)
    time.sleep(QUIET_SECONDS)
    bell.rings = 0
    (folders[1] / "team_a").mkdir()
    rings(bell)


def test_a_dead_emitter_is_built_anew(folders: tuple[Path, ...], watch: Watch, bell: Bell):
    assert watch._observer is not None
    emitter = next(each for each in watch._observer.emitters if each.watch.path == str(folders[1]))
    emitter.stop()
    emitter.join()

    assert [(folders[1], "the emitter of its events ended")] == [
        (each.folder, each.reason) for each in watch.tend(100.0)
    ]
    bell.rings = 0
    (folders[1] / "team_a").mkdir()
    rings(bell)


def test_a_folder_that_is_missing_is_told_and_watched_once_it_is_back(
    folders: tuple[Path, ...], watch: Watch, bell: Bell
):
    before = threading.active_count()
    folders[1].rmdir()
    told = [each.reason for each in watch.tend(100.0)]
    assert any("not yet built anew" in reason for reason in told), told
    assert [] == watch.tend(101.0)  # not at every turn
    for now in (110.0, 120.0, 130.0):
        watch.tend(now)
    assert threading.active_count() <= before
    folders[1].mkdir()
    watch.tend(140.0)
    bell.rings = 0
    (folders[1] / "team_a").mkdir()

    rings(bell)


def test_a_watch_that_cannot_start_does_not_stop_the_daemon(folders: tuple[Path, ...], bell: Bell):
    folders[1].rmdir()
    watch = Watch(folders, bell.ring, "events")
    watch.start()
    folders[1].mkdir()

    assert {"nothing watched it"} == {each.reason for each in watch.tend(100.0)}
    (folders[1] / "team_a").mkdir()
    rings(bell)
    watch.stop()


def test_nothing_runs_after_stop(folders: tuple[Path, ...], bell: Bell):
    before = set(threading.enumerate())
    watch = Watch(folders, bell.ring, "events")
    watch.start()
    watch.stop()
    watch.stop()

    assert set(threading.enumerate()) <= before
