"""What is taken out of a folder or an archive, and what tricks are seen through."""

from __future__ import annotations

import gzip
import io
import os
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from datarun_daemon.spool.bundle import Bounds, FolderSource, is_open_for_writing
from tests.dropping import CODE, FOLD_FILES, SETTLE_SECONDS, Desk, drop, fold_manifest

WHOLE = {**FOLD_FILES, "manifest.yaml": fold_manifest()}
UNDIGESTED = {**FOLD_FILES, "manifest.yaml": fold_manifest(digested=False)}
SETTLED = SETTLE_SECONDS + 1
#: what has long been incomplete is looked at every ten seconds
NOTICED = 11.0


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def zipped(files: Mapping[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return raw.getvalue()


def tarred(files: Mapping[str, bytes], *more: tarfile.TarInfo) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in more:
            archive.addfile(info)
    return raw.getvalue()


PACKERS = [pytest.param(zipped, "team_a.zip", id="zip"), pytest.param(tarred, "team_a.tar.gz", id="tar.gz")]
Packer = Callable[[Mapping[str, bytes]], bytes]


def entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def prefixed(files: Mapping[str, bytes], top: str) -> dict[str, bytes]:
    return {top + name: data for name, data in files.items()}


@pytest.mark.parametrize(("pack", "name"), PACKERS)
@pytest.mark.parametrize("top", ["", "some folder/", "./"])
def test_an_archive_is_taken_at_once_like_the_folder_it_packs(desk: Desk, pack: Packer, name: str, top: str):
    desk.folder(name).write_bytes(pack(prefixed(WHOLE, top)))
    claimed = desk.claim()

    assert CODE == (desk.spool.root / str(claimed.folder) / "classifier.py").read_bytes()


@pytest.mark.parametrize(("pack", "name"), PACKERS)
def test_an_archive_and_its_folder_have_the_same_digest(desk: Desk, pack: Packer, name: str):
    drop(desk, "as_folder")
    desk.folder(name).write_bytes(pack(WHOLE))
    digests = {each.digest for each in desk.look()}

    assert 1 == len(digests)


@pytest.mark.parametrize(("pack", "name"), PACKERS)
def test_an_archive_without_digests_is_taken_once_it_has_settled(desk: Desk, pack: Packer, name: str):
    desk.folder(name).write_bytes(pack(UNDIGESTED))

    assert [] == desk.look(after=SETTLE_SECONDS - 1)
    assert name == desk.claim(after=2).bundle.name


@pytest.mark.parametrize(("pack", "name"), PACKERS)
@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.99])
def test_an_archive_cut_short_anywhere_waits_for_its_rest(desk: Desk, pack: Packer, name: str, part: float):
    whole = pack(WHOLE)
    desk.folder(name).write_bytes(whole[: int(len(whole) * part)])

    assert desk.missing() == ("the rest of the archive: it ends early",)
    desk.folder(name).write_bytes(whole)
    assert name == desk.claim(after=NOTICED).bundle.name


def test_macos_extras_in_an_archive_are_passed_over(desk: Desk):
    extras = {"__MACOSX/team/._manifest.yaml": b"x", "team/.DS_Store": b"x"}
    desk.folder("team_a.zip").write_bytes(zipped({**prefixed(WHOLE, "team/"), **extras}))

    assert () == desk.claim().ignored


def crc_damaged() -> bytes:
    whole = bytearray(zipped(UNDIGESTED))
    whole[whole.index(b"classifier.py") + len("classifier.py") + 2] ^= 0xFF
    return bytes(whole)


def with_symlink_in_zip() -> bytes:
    raw = io.BytesIO(zipped(UNDIGESTED))
    with zipfile.ZipFile(raw, "a") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return raw.getvalue()


def twice_in_zip() -> bytes:
    raw = io.BytesIO(zipped(UNDIGESTED))
    with zipfile.ZipFile(raw, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("classifier.py", b"other")
    return raw.getvalue()


def zip_with_a_huge_directory() -> bytes:
    size = 1 << 20
    return b"PK\x03\x04".ljust(size, b"\0") + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 9, 9, size, 0, 0)


def tar_with_a_huge_header() -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    return gzip.compress(info.tobuf() + b"\0" * 4096)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.zip", lambda: b"no archive at all", "cannot be unpacked"),
        ("a.tar.gz", lambda: b"no archive at all", "cannot be unpacked"),
        ("a.tar.gz", lambda: gzip.compress(b"no archive at all" * 100), "cannot be unpacked"),
        ("a.zip", crc_damaged, "cannot be unpacked"),
        ("a.zip", zip_with_a_huge_directory, "a directory of 1048576 bytes"),
        ("a.tar.gz", tar_with_a_huge_header, "a header of 1073741824 bytes"),
        ("a.zip", lambda: zipped({**UNDIGESTED, "/etc/x": b""}), "the path /etc/x"),
        ("a.tar.gz", lambda: tarred({**UNDIGESTED, "../x": b""}), "the path ../x"),
        ("a.zip", lambda: zipped({**UNDIGESTED, "a/../../x": b""}), "the path a/../../x"),
        ("a.zip", with_symlink_in_zip, "link, a link or device"),
        ("a.tar.gz", lambda: tarred(UNDIGESTED, entry("l", tarfile.SYMTYPE, "/etc/passwd")), "l, a link or device"),
        ("a.tar.gz", lambda: tarred(UNDIGESTED, entry("l", tarfile.LNKTYPE, "classifier.py")), "l, a link or device"),
        ("a.tar.gz", lambda: tarred(UNDIGESTED, entry("d", tarfile.CHRTYPE)), "d, a link or device"),
        ("a.tar.gz", lambda: tarred(UNDIGESTED, entry("f", tarfile.FIFOTYPE)), "f, a link or device"),
        ("a.zip", twice_in_zip, "classifier.py twice"),
        ("a.zip", lambda: zipped({**UNDIGESTED, "bomb": b"\0" * (2 << 20)}), "more than 1048576 bytes"),
        ("a.tar.gz", lambda: tarred({**UNDIGESTED, "bomb": b"\0" * (2 << 20)}), "more than 1048576 bytes"),
        ("a.zip", lambda: zipped({**UNDIGESTED, **{f"n{n}": b"" for n in range(60)}}), "more than 50 files"),
        ("a.tar.gz", lambda: tarred({**UNDIGESTED, **{f"n{n}": b"" for n in range(60)}}), "more than 50 files"),
    ],
)
def test_a_damaged_or_malicious_archive_is_refused_in_words(
    desk: Desk, name: str, content: Callable[[], bytes], found: str
):
    desk.folder(name).write_bytes(content())

    assert found in desk.refusal(after=SETTLED).problems[0].found
    assert [] == desk.stored()


def test_a_zip_whose_members_are_larger_than_they_say_is_not_unpacked_beyond_the_bound(desk: Desk):
    whole = bytearray(zipped({**UNDIGESTED, "classifier.py": b"\0" * (2 << 20)}))
    lie = struct.pack("<I", 10)
    real = struct.pack("<I", 2 << 20)
    desk.folder("a.zip").write_bytes(bytes(whole).replace(real, lie))
    desk.refusal(after=SETTLED)

    assert [] == desk.stored()


@pytest.mark.parametrize("digested", [True, False])
@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda path: path.symlink_to("/etc/passwd"), "a symbolic link"),
        (os.mkfifo, "a FIFO"),
        (Path.mkdir, "a folder"),
    ],
)
def test_what_the_manifest_names_must_be_a_regular_file(
    desk: Desk, make: Callable[[Path], None], found: str, digested: bool
):
    bundle = drop(desk, digested=digested)
    (bundle / "classifier.py").unlink()
    make(bundle / "classifier.py")

    assert found == desk.refusal(after=SETTLED).problems[0].found


def test_a_manifest_that_is_a_fifo_does_not_hold_up_the_inbox(desk: Desk):
    (bundle := desk.folder("team_a")).mkdir()
    os.mkfifo(bundle / "manifest.yaml")

    assert "a FIFO" == desk.refusal(after=SETTLED).problems[0].found


@pytest.mark.parametrize("kind", ["symbolic link", "FIFO", "single file"])
def test_what_is_neither_folder_nor_archive_is_refused_once_it_has_settled(desk: Desk, tmp_path: Path, kind: str):
    place = desk.folder("team_a")
    match kind:
        case "symbolic link":
            place.symlink_to(tmp_path)
        case "FIFO":
            os.mkfifo(place)
        case _:
            place.write_text("x")

    assert [] == desk.look(after=SETTLE_SECONDS - 1)
    assert f"a {kind}" == desk.refusal(after=2).problems[0].found


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_a_hard_link_to_somebody_elses_file_is_refused(desk: Desk, tmp_path: Path):
    secret = tmp_path / "secret"
    secret.write_bytes(CODE)
    bundle = drop(desk, digested=False)
    (bundle / "classifier.py").unlink()
    (bundle / "classifier.py").hardlink_to(secret)
    os.chown(bundle, 12345, -1)

    assert "a hard link to a file of user 0" == desk.refusal(after=SETTLED).problems[0].found


def test_a_hard_link_to_the_senders_own_file_is_fine(desk: Desk, tmp_path: Path):
    bundle = drop(desk)
    (tmp_path / "mine").hardlink_to(bundle / "classifier.py")

    assert "team_a" == desk.claim().bundle.name


def test_a_link_that_replaces_a_file_after_it_was_listed_is_not_followed(desk: Desk, tmp_path: Path):
    bundle = drop(desk)
    descriptor = os.open(bundle, os.O_RDONLY | os.O_DIRECTORY)
    source = FolderSource(descriptor, Bounds(1 << 20, 50, 60.0))
    (bundle / "classifier.py").unlink()
    (bundle / "classifier.py").symlink_to("/etc/passwd")

    with pytest.raises(Exception, match="a link, socket or device"):
        source.copy(["classifier.py"], tmp_path, deadline=float("inf"))
    source.close()
    assert not (tmp_path / "classifier.py").exists()


def test_a_bundle_moved_away_and_replaced_after_it_was_opened_is_still_the_one_that_is_read(desk: Desk, tmp_path: Path):
    bundle = drop(desk)
    source = FolderSource(os.open(bundle, os.O_RDONLY | os.O_DIRECTORY), Bounds(1 << 20, 50, 60.0))
    bundle.rename(tmp_path / "away")
    bundle.symlink_to("/etc")

    assert WHOLE["manifest.yaml"] == source.read_manifest()
    source.close()


def test_more_files_than_allowed_are_refused(desk: Desk):
    bundle = drop(desk)
    for number in range(60):
        (bundle / f"more_{number}").touch()

    assert "at most 50 files" == desk.refusal(after=SETTLED).problems[0].expected


def test_more_bytes_than_allowed_are_refused_and_leave_nothing(tmp_path: Path):
    desk = Desk(tmp_path, bounds=Bounds(100, 50, 60.0))
    drop(desk)

    assert "more than 100 bytes" == desk.refusal().problems[0].found
    assert [] == desk.stored()


def test_files_that_the_manifest_does_not_name_are_told_and_not_taken(desk: Desk):
    bundle = drop(desk)
    (bundle / "notes.txt").write_text("x")
    (bundle / "sub").mkdir()
    (bundle / "classifier.py.part").write_text("x")
    (bundle / "link").symlink_to("/etc/passwd")
    claimed = desk.claim()

    assert ("link", "notes.txt", "sub") == claimed.ignored
    stored = {path.name for path in (desk.spool.root / str(claimed.folder)).iterdir()}
    assert {"manifest.yaml", "classifier.py", ".indices.npy"} == stored


def test_a_file_that_somebody_writes_is_seen_as_open(tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("x")
    descriptor = os.open(path, os.O_RDONLY)
    with path.open("r+"):
        assert is_open_for_writing(descriptor)

    assert not is_open_for_writing(descriptor)
    os.close(descriptor)


def test_asking_for_a_lease_never_kills_whom_a_writer_interrupts(tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("x")
    code = (
        "import os, sys, time; from datarun_daemon.spool.bundle import is_open_for_writing\n"
        "fd = os.open(sys.argv[1], os.O_RDONLY); end = time.monotonic() + 0.4\n"
        "while time.monotonic() < end: is_open_for_writing(fd)\n"
    )
    asking = subprocess.Popen([sys.executable, "-c", code, str(path)])
    while asking.poll() is None:
        path.open("r+").close()

    assert 0 == asking.returncode
