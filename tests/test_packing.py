"""Packing changes the `files:` lines of a manifest and nothing else; checking says what the daemon would."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datarun_daemon.client.errors import NameTaken
from datarun_daemon.client.packing import pack
from datarun_daemon.client.sending import check, submit
from datarun_daemon.core.errors import Rejection, SpoolError
from datarun_daemon.core.model import BundleKind
from datarun_daemon.spool.layout import Spool
from datarun_daemon.spool.manifest import FileDigest, parse_manifest
from tests.malformed import GOOD, MALFORMED, Good, Malformed, SeenBy

CSV = b"a,b\n1,2\n"
DIGEST = FileDigest(len(CSV), hashlib.sha256(CSV).hexdigest())
HEAD = "name: iris  # the flowers\ntarget_column: b\nworkflow_elements: [classifier]\n"
LINE = f'  iris.csv: {{bytes: 8, sha256: "{DIGEST.sha256}"}}\n'


def bundle(folder: Path, manifest: str, **files: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.yaml").write_bytes(manifest.encode())
    for name, content in (files or {"iris.csv": CSV}).items():
        (folder / name).write_bytes(content)
    return folder


def dataset_bundle(folder: Path) -> Path:
    return bundle(folder, HEAD + "data_file: iris.csv\n")


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (HEAD + "data_file: iris.csv", HEAD + "data_file: iris.csv\nfiles:\n" + LINE),
        (
            HEAD + "files:\n  old.csv: {bytes: 1, sha256: x}\n\n# hello\ndata_file: iris.csv\n",
            HEAD + "files:\n" + LINE + "\n# hello\ndata_file: iris.csv\n",
        ),
        (
            HEAD + "files: {iris.csv: {bytes: 3,\n  sha256: 4}}\n# k\ndata_file: iris.csv\n",
            HEAD + "files:\n" + LINE + "# k\ndata_file: iris.csv\n",
        ),
        (HEAD + "data_file: iris.csv\nfiles:\n", HEAD + "data_file: iris.csv\nfiles:\n" + LINE),
    ],
    ids=["none yet", "a block", "in braces", "empty"],
)
def test_packing_rewrites_the_files_and_leaves_the_other_lines(tmp_path: Path, manifest: str, expected: str) -> None:
    folder = bundle(tmp_path / "iris", manifest)

    pack(folder)

    assert expected == (folder / "manifest.yaml").read_text()


def test_packing_again_brings_digests_up_to_date(tmp_path: Path) -> None:
    folder = dataset_bundle(tmp_path / "iris")
    (folder / "iris.csv").write_bytes(b"a,b\n")
    pack(folder)
    (folder / "iris.csv").write_bytes(CSV)

    pack(folder)

    assert {"iris.csv": DIGEST} == parse_manifest(BundleKind.DATASETS, (folder / "manifest.yaml").read_bytes()).files


def test_line_ends_of_windows_stay(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "iris", (HEAD + "data_file: iris.csv\n").replace("\n", "\r\n"))

    pack(folder)

    raw = (folder / "manifest.yaml").read_bytes()
    assert raw.count(b"\r\n") == raw.count(b"\n")


@pytest.mark.parametrize("manifest", ["{name: iris}", HEAD + "data_file: iris.csv\n...\n"])
def test_a_manifest_without_room_for_lines_is_refused_and_stays(tmp_path: Path, manifest: str) -> None:
    folder = bundle(tmp_path / "iris", manifest)

    with pytest.raises(Rejection):
        pack(folder)

    assert manifest == (folder / "manifest.yaml").read_text()


def test_packing_names_every_file_that_is_missing(tmp_path: Path) -> None:
    manifest = (
        "submission: {id: 1, dataset: iris, files: [classifier.py]}\n"
        "folds:\n  - {id: 1, train_is: a.npy, test_is: [1]}\n"
    )
    folder = bundle(tmp_path / "team", manifest, other=b"")

    with pytest.raises(Rejection) as caught:
        pack(folder)

    assert {"classifier.py", "a.npy"} == {problem.field for problem in caught.value.problems}


@given(name=st.from_regex(r"[A-Za-z0-9é~ :#'\"\[\]{}%@&*!|>-]{1,20}[a-z]\.csv", fullmatch=True))
@settings(deadline=None, max_examples=50)
def test_any_file_name_that_a_manifest_may_hold_is_packed(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    quoted = "'" + name.replace("'", "''") + "'"
    folder = tmp_path_factory.mktemp("names") / "iris"
    folder.mkdir()
    (folder / "manifest.yaml").write_text(HEAD + f"data_file: {quoted}\n")
    (folder / name).write_bytes(CSV)
    try:
        parse_manifest(BundleKind.DATASETS, (folder / "manifest.yaml").read_bytes())
    except Rejection:
        return  # no name for a manifest

    pack(folder)

    assert {name: DIGEST} == parse_manifest(BundleKind.DATASETS, (folder / "manifest.yaml").read_bytes()).files


def placed(folder: Path, case: Good | Malformed) -> Path:
    folder.mkdir()
    for name, content in case.files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_nothing_is_wrong_with_a_good_bundle(tmp_path: Path, case: Good) -> None:
    assert [] == check(placed(tmp_path / "bundle", case))


@pytest.mark.parametrize(
    "case",
    [case for case in MALFORMED if case.seen_by in (SeenBy.MANIFEST, SeenBy.INDICES)],
    ids=lambda case: case.name,
)
def test_checking_finds_what_the_daemon_would_reject(tmp_path: Path, case: Malformed) -> None:
    assert check(placed(tmp_path / "bundle", case))


def test_checking_sees_a_file_that_is_not_what_is_declared(tmp_path: Path) -> None:
    folder = dataset_bundle(tmp_path / "iris")
    pack(folder)
    (folder / "iris.csv").write_bytes(CSV + b"3,4\n")

    (problem,) = check(folder)

    assert problem.field == "iris.csv"


@pytest.mark.parametrize("packing", ["zip", "gztar"])
def test_archives_are_looked_into(tmp_path: Path, packing: str) -> None:
    folder = dataset_bundle(tmp_path / "iris")
    (folder / "iris.csv").unlink()

    (problem,) = check(Path(shutil.make_archive(str(tmp_path / "packed"), packing, tmp_path, "iris")))

    assert (problem.field, problem.found) == ("iris.csv", "no such file")


@pytest.mark.parametrize("as_folder", [False, True])
def test_what_needs_no_files_is_sent_with_the_end_that_tells_the_daemon_that_it_is_whole(
    tmp_path: Path, as_folder: bool
) -> None:
    spool = Spool.create(tmp_path / "spool")
    text = b"action: cancel\nfolds: [1]"
    bundle = tmp_path / ("stop" if as_folder else "stop.yaml")
    if as_folder:
        bundle.mkdir()
    manifest = bundle / "manifest.yaml" if as_folder else bundle
    manifest.write_bytes(text)

    sent = submit(bundle, spool.root)

    assert (sent / "manifest.yaml" if as_folder else sent).read_bytes() == text + b"\n...\n"
    assert manifest.read_bytes() == text


def test_a_submitted_bundle_lies_packed_in_the_incoming_folder_and_the_original_is_untouched(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path / "spool")
    folder = dataset_bundle(tmp_path / "iris")

    sent = submit(folder, spool.root)

    assert sent == spool.incoming_of(BundleKind.DATASETS) / "iris"
    assert [path.name for path in sorted(sent.parent.iterdir()) if path.name != "README.txt"] == ["iris"]
    assert parse_manifest(BundleKind.DATASETS, (sent / "manifest.yaml").read_bytes()).digested
    assert "files:" not in (folder / "manifest.yaml").read_text()


def test_a_name_that_is_taken_is_not_sent_over(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path / "spool")
    folder = dataset_bundle(tmp_path / "iris")
    submit(folder, spool.root)

    with pytest.raises(NameTaken):
        submit(folder, spool.root)

    assert submit(folder, spool.root, "iris_again").is_dir()


def test_nothing_is_sent_into_a_folder_that_is_no_spool(tmp_path: Path) -> None:
    with pytest.raises(SpoolError):
        submit(dataset_bundle(tmp_path / "iris"), tmp_path)
