"""Nothing dropped is lost: when a bundle is taken, refused, or told to be incomplete, and what is left of it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from datarun_daemon.core.errors import Problem
from datarun_daemon.core.model import BundleId, BundleKind
from datarun_daemon.spool.findings import Claimed, Cleared, Incomplete, Refused, Unfinished, Withdrawn
from datarun_daemon.spool.indices import unpack
from tests.dropping import (
    DATASETS,
    FOLD_FILES,
    FOLDS,
    INCOMPLETE_SECONDS,
    REQUESTS,
    SETTLE_SECONDS,
    Desk,
    drop,
    fold_manifest,
    write,
)

SETTLED = SETTLE_SECONDS + 1
#: what has long been incomplete is looked at every ten seconds
NOTICED = 11.0
PROBLEM = Problem("folds[0].id", "fold 11, which is registered already", "a new id")
SPLIT = b"action: split\ndataset: iris\nheld_out_test: 0.5\n"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_digested_bundle_is_taken_at_once_with_its_row_numbers_packed(desk: Desk):
    drop(desk)
    claimed = desk.claim()
    train, test = unpack(desk.spool.root / claimed.indices, claimed.fold_indices[0])

    assert ([0, 1, 2, 3], [4, 5]) == (list(train), list(test))
    assert FOLD_FILES.keys() == claimed.files.keys()


def test_a_dataset_is_taken_with_its_data(desk: Desk):
    files = {"iris.csv": b"a,species\n1,x\n"}
    manifest = b"name: iris\ntarget_column: species\nworkflow_elements: [classifier]\ndata_file: iris.csv\n"
    write(desk.folder("iris", DATASETS), {**files, "manifest.yaml": manifest})
    claimed = desk.claim(after=SETTLED)

    assert files["iris.csv"] == (desk.spool.root / str(claimed.folder) / "iris.csv").read_bytes()


@pytest.mark.parametrize("name", ["split.yaml", "split.yml", "split"])
def test_a_request_is_one_file_or_a_folder_and_leaves_nothing_in_the_store(desk: Desk, name: str):
    if name == "split":
        write(desk.folder(name, REQUESTS), {"manifest.yaml": SPLIT})
    else:
        desk.folder(name, REQUESTS).write_bytes(SPLIT)
    claimed = desk.claim(after=SETTLED)

    assert (None, name) == (claimed.folder, claimed.bundle.name)


def test_a_bundle_without_digests_is_taken_once_nothing_changed_for_long_enough(desk: Desk):
    drop(desk, digested=False)

    assert [] == desk.look(after=SETTLE_SECONDS - 0.5)
    assert "team_a" == desk.claim(after=1).bundle.name


def test_a_change_begins_the_wait_anew(desk: Desk):
    bundle = drop(desk, digested=False)
    desk.look(after=SETTLE_SECONDS - 0.5)
    (bundle / "classifier.py").write_bytes(b"class Classifier: x = 1\n")

    assert [] == desk.look(after=SETTLE_SECONDS - 0.5)
    assert "team_a" == desk.claim(after=2).bundle.name


def test_a_bundle_written_in_any_order_and_in_pieces_is_taken_when_it_is_whole(desk: Desk):
    files = {**FOLD_FILES, "manifest.yaml": fold_manifest()}
    pieces = [(name, part) for name in files for part in (1, 2)]
    random.Random(7).shuffle(pieces)
    pieces.sort(key=lambda piece: piece[1])
    bundle = write(desk.folder("team_a"), {})
    found = []
    for name, part in pieces:
        assert [] == found
        data = files[name]
        (bundle / name).write_bytes(data[: len(data) * part // 2])
        found = desk.look(after=0.2)

    assert [Claimed] == [type(each) for each in found]


@pytest.mark.parametrize("name", ["classifier.py", "train.npy"])
def test_a_file_truncated_under_its_final_name_is_waited_for_however_long_it_takes(desk: Desk, name: str):
    bundle = drop(desk)
    (bundle / name).write_bytes(FOLD_FILES[name][:-3])
    size = len(FOLD_FILES[name])

    assert (f"{name}: {size - 3} of {size} bytes are there",) == desk.missing()
    (bundle / name).write_bytes(FOLD_FILES[name])
    assert "team_a" == desk.claim(after=NOTICED).bundle.name


def test_a_file_of_the_right_size_but_wrong_content_is_waited_for(desk: Desk):
    bundle = drop(desk)
    (bundle / "classifier.py").write_bytes(FOLD_FILES["classifier.py"].upper())

    assert ("classifier.py: its sha256 differs from the manifest's",) == desk.missing()
    assert [] == desk.stored()
    (bundle / "classifier.py").write_bytes(FOLD_FILES["classifier.py"])
    assert "team_a" == desk.claim(after=NOTICED).bundle.name


@pytest.mark.parametrize("digested", [True, False])
def test_a_late_file_is_told_as_missing_once_and_taken_when_it_comes(desk: Desk, digested: bool):
    bundle = drop(desk, digested=digested, leave_out=["test.npy"])

    assert ("test.npy",) == desk.missing()
    assert [] == desk.look(after=5 * INCOMPLETE_SECONDS)
    (bundle / "test.npy").write_bytes(FOLD_FILES["test.npy"])
    assert "team_a" == desk.claim(after=NOTICED + SETTLED).bundle.name


def test_a_folder_without_a_manifest_is_told_where_one_is(desk: Desk):
    write(desk.folder("team_a") / "inner", {"manifest.yaml": fold_manifest()})

    assert "there is one in inner/" in desk.missing()[0]


def test_an_incomplete_bundle_that_goes_is_withdrawn(desk: Desk):
    bundle = drop(desk, leave_out=["test.npy"])
    desk.missing()
    for path in bundle.iterdir():
        path.unlink()
    bundle.rmdir()

    assert [Withdrawn(FOLDS, "team_a")] == desk.look(after=NOTICED)


@pytest.mark.parametrize("cut", [0, 10, 40, 70, 90])
def test_a_half_written_manifest_is_not_refused_before_it_settled(desk: Desk, cut: int):
    bundle = drop(desk)
    whole = fold_manifest()
    (bundle / "manifest.yaml").write_bytes(whole[:cut])

    assert [] == desk.look(after=SETTLE_SECONDS - 1)
    (bundle / "manifest.yaml").write_bytes(whole)
    assert "team_a" == desk.claim(after=2).bundle.name


def test_a_wrong_manifest_is_refused_with_all_its_problems(desk: Desk):
    bundle = drop(desk)
    (bundle / "manifest.yaml").write_bytes(b"submission: {id: '../x'}\nfolds: []\npriority: urgent\n")
    fields = {problem.field for problem in desk.refusal(after=SETTLED).problems}

    assert {"submission.id", "priority"} <= fields


def test_wrong_row_numbers_in_a_digested_bundle_are_refused_at_once(desk: Desk):
    files = {**FOLD_FILES, "test.npy": FOLD_FILES["train.npy"]}
    write(desk.folder(".team_a"), {**files, "manifest.yaml": fold_manifest(files)}).rename(desk.folder("team_a"))

    assert "folds[0].test_is" == desk.refusal().problems[0].field
    assert [] == desk.stored()


@pytest.mark.parametrize("name", ["classifier.py", "manifest.yaml", "test.npy"])
def test_a_file_that_is_open_for_writing_is_not_taken_until_it_is_closed(desk: Desk, name: str):
    bundle = drop(desk, digested=False)
    with (bundle / name).open("r+"):
        assert [] == desk.look(after=INCOMPLETE_SECONDS - 1)
    assert "team_a" == desk.claim(after=NOTICED).bundle.name


def test_a_digested_bundle_waits_for_its_manifest_to_be_closed_and_no_longer(desk: Desk):
    bundle = drop(desk)
    with (bundle / "manifest.yaml").open("r+"):
        assert [] == desk.look(after=0.5)
    assert "team_a" == desk.claim(after=0.5).bundle.name


def test_temporaries_are_no_bundles_and_keep_nothing_waiting(desk: Desk):
    for name in (".hidden", "team_a.part", "team_b.zip.filepart", "lost+found"):
        desk.folder(name).mkdir()
    (drop(desk) / ".classifier.py.x7Hq2").write_text("rsync")

    assert ("team_a", ()) == ((claimed := desk.claim(after=SETTLED)).bundle.name, claimed.ignored)


def test_the_order_of_arrival_is_kept(desk: Desk):
    names = [f"team_{number}" for number in (3, 1, 10, 2)]
    for name in names:
        drop(desk, name)
        os.sync()  # takes longer than a tick of the kernel's clock

    assert names == [each.bundle.name for each in desk.look() if isinstance(each, Claimed)]


def test_a_burst_is_handed_out_in_batches_and_each_bundle_once(desk: Desk):
    names = {f"team_{number}" for number in range(3000)}
    code_only = {"classifier.py": FOLD_FILES["classifier.py"]}
    manifest = fold_manifest(code_only).replace(b"train.npy, test_is: test.npy", b"[0, 1], test_is: [2]")
    for name in names:
        write(desk.folder(name), {**code_only, "manifest.yaml": manifest})
    claimed: list[str] = []
    most = 0
    while len(claimed) < len(names) and desk.now < 2000:
        found = desk.look(after=0.01)
        most = max(most, len(found))
        for each in found:
            assert isinstance(each, Claimed)
            claimed.append(each.bundle.name)
            assert desk.inbox.finish(each.bundle)
        desk.now += 0.1

    assert (len(names), names, []) == (len(claimed), set(claimed), desk.incoming())
    assert most <= 200


def test_tickets_count_up(desk: Desk):
    for number in range(5):
        drop(desk, f"team_{number}")

    assert [1, 2, 3, 4, 5] == [each.bundle.ticket for each in desk.look() if isinstance(each, Claimed)]


def test_what_is_handed_out_is_not_handed_out_again_until_it_is_finished(desk: Desk):
    drop(desk)
    desk.claim()

    assert [] == desk.look(after=2 * INCOMPLETE_SECONDS)


def test_finishing_removes_the_bundle_and_the_name_is_free_again(desk: Desk):
    drop(desk)
    assert desk.inbox.finish(desk.claim().bundle)
    assert [] == desk.incoming()
    drop(desk, fold="12")

    assert 2 == desk.claim(after=1).bundle.ticket


def test_what_changed_after_it_was_claimed_is_not_removed_but_a_bundle_of_its_own(desk: Desk):
    bundle = drop(desk, digested=False)
    first = desk.claim(after=SETTLED)
    (bundle / "classifier.py").write_bytes(b"class Classifier: version = 2\n")
    desk.inbox.finish(first.bundle)
    second = desk.claim(after=SETTLED)

    assert first.digest != second.digest


def test_a_bundle_replaced_while_its_first_is_in_hand_is_taken_once_more(desk: Desk):
    bundle = drop(desk)
    first = desk.claim()
    bundle.rename(desk.spool.root / "away")
    assert [] == desk.look(after=NOTICED)
    drop(desk, fold="12")
    assert [] == desk.look(after=NOTICED)
    desk.inbox.finish(first.bundle)

    assert "12" == desk.claim(after=1).fold_indices[0].id


def test_a_refused_bundle_lies_whole_in_rejected_with_its_reason(desk: Desk):
    drop(desk)
    bundle = desk.claim().bundle
    place = desk.inbox.refuse(bundle, [PROBLEM])
    rejected = desk.spool.root / "rejected/folds/team_a"

    assert ("rejected/folds/team_a", [], []) == (place, desk.incoming(), desk.stored())
    assert {**FOLD_FILES, "manifest.yaml": fold_manifest()} == {
        path.name: path.read_bytes() for path in rejected.iterdir() if path.name != "REASON.txt"
    }


def test_a_reason_names_every_problem_and_what_to_do(desk: Desk):
    drop(desk)
    more = Problem("priority", "'urgent'", "H or L")
    place = desk.inbox.refuse(desk.claim().bundle, [PROBLEM, more])

    assert """\
datarun could not accept incoming/folds/team_a.
2 things have to be mended:

1. folds[0].id
   found:    fold 11, which is registered already
   expected: a new id

2. priority
   found:    'urgent'
   expected: H or L

Nothing was changed. Mend it here and move the folder (this file may stay in it) back; in the spool's folder:

    mv rejected/folds/team_a incoming/folds/

Or drop a mended copy there and delete this one: datarun does not need it any more.
""" == (desk.spool.root / str(place) / "REASON.txt").read_text()


def test_a_reason_cannot_play_tricks_on_a_terminal(desk: Desk):
    drop(desk)
    trick = Problem("a\x1b[2J", "b\x07\r\nExpected: nothing", "c\u202e")
    place = desk.inbox.refuse(desk.claim().bundle, [trick])
    text = (desk.spool.root / str(place) / "REASON.txt").read_text()

    assert all(line.isprintable() for line in text.splitlines())
    assert r"b\x07\r\nExpected: nothing" in text


def test_the_command_in_a_reason_brings_a_mended_bundle_back(desk: Desk):
    (desk.folder("team a'b")).mkdir()
    write(desk.folder("team a'b"), {**FOLD_FILES, "manifest.yaml": b"nonsense"})
    refused = desk.refusal(after=SETTLED)
    place = desk.spool.root / str(desk.inbox.refuse(refused.bundle, refused.problems))
    (place / "manifest.yaml").write_bytes(fold_manifest())
    command = next(line for line in (place / "REASON.txt").read_text().splitlines() if line.startswith("    mv "))
    assert 0 == os.system(f"cd {desk.spool.root} && {command}")

    assert ("team a'b", ()) == ((claimed := desk.claim(after=1)).bundle.name, claimed.ignored)


def test_a_refused_archive_lies_beside_its_reason_and_can_be_moved_back(desk: Desk):
    desk.folder("team_a.zip").write_bytes(b"no archive")
    refused = desk.refusal(after=SETTLED)
    place = desk.spool.root / str(desk.inbox.refuse(refused.bundle, refused.problems))

    assert {"team_a.zip", "REASON.txt"} == {path.name for path in place.iterdir()}
    assert "mv rejected/folds/team_a/team_a.zip incoming/folds/" in (place / "REASON.txt").read_text()


def test_a_second_rejected_bundle_of_a_name_lies_beside_the_first(desk: Desk):
    places = []
    for _ in range(2):
        drop(desk)
        places.append(desk.inbox.refuse(desk.claim(after=1).bundle, [PROBLEM]))

    assert ["rejected/folds/team_a", "rejected/folds/team_a-2"] == places


def test_a_rejected_link_is_moved_and_not_followed(desk: Desk, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    desk.folder("team_a").symlink_to(tmp_path / "elsewhere")
    refused = desk.refusal(after=SETTLED)
    place = desk.spool.root / str(desk.inbox.refuse(refused.bundle, refused.problems))

    assert (True, []) == ((place / "team_a").is_symlink(), list((tmp_path / "elsewhere").iterdir()))


def test_a_name_with_control_characters_is_rejected_under_a_readable_one(desk: Desk):
    desk.folder("a\x1b[2Jb").mkdir()
    (desk.folder("a\x1b[2Jb") / "manifest.yaml").write_bytes(b"nonsense")
    refused = desk.refusal(after=SETTLED)

    assert "a%1B[2Jb" == refused.bundle.name
    assert "rejected/folds/a%1B[2Jb" == desk.inbox.refuse(refused.bundle, refused.problems)


def killed_after(desk: Desk, problems: tuple[Problem, ...] | None) -> BundleId:
    """The daemon is killed when the line about the claimed bundle is written, and no further; a new one starts."""
    bundle = desk.claim(after=SETTLED).bundle
    desk.open(next_ticket=bundle.ticket + 1, unfinished=[Unfinished(bundle, problems)])
    return bundle


def test_an_accepted_bundle_is_only_removed_after_a_crash(desk: Desk):
    drop(desk)
    bundle = killed_after(desk, None)

    assert [Cleared(bundle)] == desk.look(after=SETTLED)
    assert ([], 1) == (desk.incoming(), len(desk.stored()))


def test_a_rejected_bundle_is_only_moved_after_a_crash(desk: Desk):
    drop(desk)
    bundle = killed_after(desk, (PROBLEM,))

    assert [Cleared(bundle)] == desk.look(after=SETTLED)
    assert "a new id" in (desk.spool.root / "rejected/folds/team_a/REASON.txt").read_text()


def test_another_bundle_under_the_name_of_an_unfinished_one_is_taken(desk: Desk):
    bundle = drop(desk)
    killed_after(desk, None)
    (bundle / "more.txt").write_text("x")

    assert 2 == desk.claim(after=SETTLED).bundle.ticket


def test_an_unfinished_bundle_that_has_gone_is_cleared(desk: Desk):
    bundle = drop(desk)
    unfinished = killed_after(desk, None)
    bundle.rename(desk.spool.root / "away")

    assert [Cleared(unfinished)] == desk.look(after=SETTLED)


def test_a_rejected_bundle_without_its_reason_gets_it_after_a_crash(desk: Desk):
    bundle = drop(desk)
    killed_after(desk, (PROBLEM,))
    bundle.rename(desk.spool.rejected_bundle(FOLDS, "team_a"))
    desk.look()

    assert "a new id" in (desk.spool.root / "rejected/folds/team_a/REASON.txt").read_text()


def test_a_copy_that_no_line_names_is_removed_at_the_start_and_the_bundle_taken_again(desk: Desk):
    drop(desk)
    first = desk.claim()
    desk.open(next_ticket=first.bundle.ticket)

    assert [] == desk.stored()
    assert first.digest == desk.claim().digest


def test_a_half_removed_bundle_is_removed_at_the_start(desk: Desk):
    write(desk.folder(".datarun-taken-000000001"), {"classifier.py": b"x"})
    desk.open()

    assert [] == desk.incoming()


def test_what_lines_name_survives_the_start(desk: Desk):
    drop(desk)
    first = desk.claim()
    desk.inbox.finish(first.bundle)
    desk.open(next_ticket=first.bundle.ticket + 1)

    assert 1 == len(desk.stored())


def test_waiting_bundles_are_told_with_what_they_wait_for(desk: Desk):
    drop(desk, leave_out=["test.npy"])
    desk.look()

    assert [("team_a", "test.npy")] == [(each.name, each.waits_for) for each in desk.inbox.waiting()]


def test_an_incoming_folder_that_vanishes_is_told_once_and_the_others_are_served(desk: Desk):
    folds = desk.spool.incoming_of(FOLDS)
    (folds / "README.txt").unlink()
    folds.rmdir()
    write(desk.folder("split", REQUESTS), {"manifest.yaml": SPLIT})

    assert "split" == desk.claim(after=3 * SETTLED).bundle.name
    assert ["incoming_unreadable"] == [notice.event for notice in desk.inbox.notices()]


def test_a_vanished_incoming_folder_is_looked_at_again(desk: Desk):
    folds = desk.spool.incoming_of(FOLDS)
    folds.rename(desk.spool.root / "away")
    desk.look(after=1)
    folds.mkdir()
    drop(desk)

    assert "team_a" == desk.claim(after=NOTICED).bundle.name


def test_an_idle_inbox_has_nothing_due_until_the_next_listing(desk: Desk):
    desk.look()

    assert 5.0 == desk.inbox.seconds_to_next(desk.now)


def test_what_long_waits_is_seldom_looked_at(desk: Desk):
    drop(desk, leave_out=["test.npy"])
    desk.missing(after=600)
    looks = 0
    end = desk.now + 100
    while desk.now < end:
        desk.now += max(desk.inbox.seconds_to_next(desk.now), 0.01)
        desk.inbox.look(desk.now)
        looks += 1

    assert looks <= 35  # twenty listings, ten examinations


@pytest.mark.parametrize("kind", list(BundleKind))
def test_every_kind_is_rejected_into_its_own_folder(desk: Desk, kind: BundleKind):
    write(desk.folder("x", kind), {"manifest.yaml": b"nonsense"})
    found = desk.refusal(after=SETTLED)

    assert isinstance(found, Refused)
    assert f"rejected/{kind.value}/x" == desk.inbox.refuse(found.bundle, found.problems)


def test_growth_is_told_no_more_often_than_incompleteness(desk: Desk):
    bundle = drop(desk)
    found = []
    for size in range(20):
        (bundle / "classifier.py").write_bytes(b"x" * size)
        found += desk.look(after=INCOMPLETE_SECONDS / 10)

    assert {Incomplete} == {type(each) for each in found}
    assert len(found) <= 2


NOBODY = 65534


@pytest.fixture
def nobodys_desk() -> Iterator[Desk]:
    """A spool of a user who has no rights on what others drop into it."""
    if os.getuid() != 0:
        pytest.skip("only root can be somebody else")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        desk = Desk(folder)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        yield desk


def as_nobody(act: Callable[[], None]) -> None:
    """Runs ``act``, with its assertions, in a process without rights."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            act()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    assert 0 == os.waitpid(child, 0)[1]


def test_a_bundle_that_we_may_not_remove_is_hidden_and_told(nobodys_desk: Desk):
    desk = nobodys_desk
    drop(desk, digested=False)

    def act() -> None:
        bundle = desk.claim(after=SETTLED).bundle
        assert desk.inbox.finish(bundle)
        assert [".datarun-taken-000000001"] == desk.incoming()
        assert ["taken_bundle_not_removed"] == [notice.event for notice in desk.inbox.notices()]
        assert [] == desk.look(after=SETTLED)

    as_nobody(act)


def test_a_refused_bundle_that_we_may_not_move_is_copied_whole(nobodys_desk: Desk):
    desk = nobodys_desk
    bundle = drop(desk)
    (bundle / "sub").mkdir()
    (bundle / "sub" / "notes.txt").write_text("x")

    def act() -> None:
        place = desk.spool.root / str(desk.inbox.refuse(desk.claim().bundle, [PROBLEM]))
        names = {path.relative_to(place).as_posix() for path in place.rglob("*")}
        assert {*FOLD_FILES, "manifest.yaml", "sub", "sub/notes.txt", "REASON.txt"} == names
        assert [] == [name for name in desk.incoming() if not name.startswith(".datarun-taken-")]

    as_nobody(act)


def test_in_a_sticky_folder_a_bundle_stays_and_is_not_taken_again_until_it_changes(nobodys_desk: Desk):
    desk = nobodys_desk
    bundle = drop(desk)
    incoming = desk.spool.incoming_of(FOLDS)
    os.chown(incoming, 0, 0)
    incoming.chmod(0o1777)
    bundle.chmod(0o777)

    def act() -> None:
        assert not desk.inbox.finish(desk.claim().bundle)
        assert [] == desk.look(after=3 * INCOMPLETE_SECONDS)
        assert ["bundle_not_cleared"] == [notice.event for notice in desk.inbox.notices()]
        (bundle / "more.txt").write_text("x")
        assert 2 == desk.claim(after=NOTICED).bundle.ticket

    as_nobody(act)


def test_a_bundle_that_we_may_not_read_is_told_as_such_and_taken_once_we_may(nobodys_desk: Desk):
    desk = nobodys_desk
    bundle = drop(desk)
    bundle.chmod(0o700)

    def act() -> None:
        assert "cannot read it (Permission denied)" in desk.missing()[0]

    as_nobody(act)
    bundle.chmod(0o755)
    as_nobody(lambda: assert_claimed(desk))


def assert_claimed(desk: Desk) -> None:
    assert "team_a" == desk.claim(after=NOTICED).bundle.name


FULL_DISK = """
import shutil, sys
from pathlib import Path
from tests.dropping import Desk, drop
desk = Desk(Path(sys.argv[1]))
drop(desk)
filler = desk.spool.root / "filler"
try:
    with filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))
except OSError:
    pass
assert [] == desk.look(after=50.0)
assert ([], ["team_a"]) == (desk.stored(), desk.incoming())
notices = desk.inbox.notices()
assert {"bundle_not_copied"} == {notice.event for notice in notices} and len(notices) <= 6, notices
filler.unlink()
assert "Claimed" == type(desk.look(after=70.0)[-1]).__name__
"""


def test_a_full_disk_loses_nothing_and_is_tried_again_in_peace(tmp_path: Path):
    script = f"mount -t tmpfs -o size=256k tmpfs {tmp_path} && exec {sys.executable} -c '{FULL_DISK}' {tmp_path}"
    root = Path(__file__).parents[1]
    ended = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script], cwd=root, capture_output=True, text=True, check=False
    )

    assert "" == ended.stderr
