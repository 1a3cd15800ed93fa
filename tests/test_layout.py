"""Where things lie in a spool, and which names count."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from datarun_daemon.core.errors import SpoolError
from datarun_daemon.core.model import BundleKind
from datarun_daemon.spool.layout import Spool, display_name, is_bundle_name, is_ignored_file


def test_a_spool_that_was_made_can_be_opened(tmp_path: Path):
    made = Spool.create(tmp_path / "spool")

    assert made == Spool.open(tmp_path / "spool")


def test_making_a_spool_again_keeps_what_is_in_it(tmp_path: Path):
    spool = Spool.create(tmp_path)
    readme = spool.incoming / "README.txt"
    readme.write_text("ours")
    spool.incoming_of(BundleKind.FOLDS).chmod(0o700)
    Spool.create(tmp_path)

    assert ("ours", 0o700) == (
        readme.read_text(),
        stat.S_IMODE(spool.incoming_of(BundleKind.FOLDS).stat().st_mode),
    )


def test_every_folder_that_a_person_may_open_explains_itself(tmp_path: Path):
    spool = Spool.create(tmp_path)
    kinds = [kind.value for kind in BundleKind]
    folders = ["", "incoming", "receipts", "rejected", "outbox", "status", "catalog", "store", "runs"]
    folders += [f"incoming/{kind}" for kind in kinds]

    assert all((spool.root / folder / "README.txt").stat().st_size > 50 for folder in folders)


def test_a_shared_spool_lets_its_group_drop_and_take(tmp_path: Path):
    spool = Spool.create(tmp_path, shared=True)
    shared = [*spool.incoming_folders(), spool.outbox, spool.rejected_of(BundleKind.FOLDS)]

    assert {0o2775} == {stat.S_IMODE(folder.stat().st_mode) for folder in shared}


def test_what_clients_sent_and_what_runs_is_nobody_elses_to_read(tmp_path: Path):
    spool = Spool.create(tmp_path, shared=True)

    assert {0o700} == {stat.S_IMODE(folder.stat().st_mode) for folder in (spool.store, spool.runs)}


@pytest.mark.parametrize("broken", ["missing", "no marker", "no outbox", "other format"])
def test_what_is_no_spool_is_refused_with_what_to_do(tmp_path: Path, broken: str):
    spool = Spool.create(tmp_path / "spool")
    match broken:
        case "missing":
            spool = Spool(tmp_path / "elsewhere")
        case "no marker":
            spool.marker.unlink()
        case "no outbox":
            (spool.outbox / "README.txt").unlink()
            spool.outbox.rmdir()
        case _:
            spool.marker.write_text("datarun spool, format 99\n")
    expected = {"no outbox": r"outbox.*datarun init", "other format": r"format 99.*reads format 1"}

    with pytest.raises(SpoolError, match=expected.get(broken, "datarun init")):
        Spool.open(spool.root)


@pytest.mark.parametrize(
    "name",
    ["README.txt", ".hidden", "a.part", "a.zip.filepart", "a.tmp", "~$a", ".~tmp~", "._a", ".DS_Store", "Thumbs.db",
     "desktop.ini", "@eaDir", ".nfs0001", ".fuse_hidden1", "lost+found", "REASON.txt"],
)  # fmt: skip
def test_temporaries_and_our_own_are_no_bundles(name: str):
    assert not is_bundle_name(name)


def test_a_readme_in_a_bundle_is_part_of_it():
    assert not is_ignored_file("README.txt")


@pytest.mark.parametrize(
    ("entry", "shown"),
    [
        ("Team A", "Team A"),
        ("Müller", "Müller"),
        ("a\nb", "a%0Ab"),
        ("a\x1b[2Jb", "a%1B[2Jb"),
        ("a\u202eb", "a%E2%80%AEb"),
    ],
)
def test_a_name_is_shown_without_what_could_trick_a_terminal(entry: str, shown: str):
    assert shown == display_name(entry)


def test_a_name_that_is_not_utf8_becomes_text():
    assert "a%FF" == display_name(os.fsdecode(b"a\xff"))


@pytest.mark.parametrize("name", ["team_a", "team_a.zip", "team_a.tar.gz"])
def test_a_bundle_has_one_receipt_however_it_was_packed(tmp_path: Path, name: str):
    assert tmp_path / "receipts/folds/team_a.yaml" == Spool(tmp_path).receipt(BundleKind.FOLDS, name)


def test_the_longest_name_still_makes_names_that_a_file_system_takes(tmp_path: Path):
    spool, name = Spool(tmp_path), "ä" * 127
    paths = [
        spool.receipt(BundleKind.FOLDS, name),
        spool.rejected_bundle(BundleKind.FOLDS, name, again=1000),
        spool.stored_bundle(BundleKind.FOLDS, 123_456_789, name),
    ]

    assert all(len(path.name.encode()) < 230 for path in paths)


def test_two_long_names_that_begin_alike_have_receipts_of_their_own(tmp_path: Path):
    spool = Spool(tmp_path)

    assert spool.receipt(BundleKind.FOLDS, "a" * 220 + "b") != spool.receipt(BundleKind.FOLDS, "a" * 220 + "c")


@pytest.mark.parametrize("text", ["..", ".", "", "a/b", "../x", "a\0b", "a" * 101])
def test_what_is_no_id_never_becomes_a_path(tmp_path: Path, text: str):
    with pytest.raises(ValueError, match="is no id"):
        Spool(tmp_path).outbox_result("iris", "24", text)
