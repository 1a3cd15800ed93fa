"""RAMP kits on their way in: what their manifests may say, and which of their files are taken."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from datarun_daemon.client.packing import TooManyFiles, pack
from datarun_daemon.client.sending import check, submit
from datarun_daemon.core.errors import Problem, Rejection
from datarun_daemon.core.model import BundleKind, Split
from datarun_daemon.spool.bundle import Bounds, FolderSource
from datarun_daemon.spool.layout import Spool
from datarun_daemon.spool.manifest import DatasetManifest, FoldsManifest, parse_manifest
from datarun_daemon.spool.names import clashes, file_path_fault
from tests.bundle_cases import DATASETS, FOLDS, Good, Malformed, SeenBy, refused
from tests.daemon_process import RunningDaemon
from tests.dropping import BOUNDS, SETTLE_SECONDS, Desk
from tests.kits import GOOD_KITS, MALFORMED_KITS, write_kit

DATARUN = Path(sys.executable).parent / "datarun"
MANIFEST = "name: flowers\nformat: ramp\n"
SETTLED = SETTLE_SECONDS + 1
TAKEN = {
    "problem.py",
    "data/flowers/train.csv",
    "data/flowers/test.csv",
    "external_imports/helping/__init__.py",
    "README.md",
}
PASSED_OVER = {
    "flowers.ipynb": "x",
    "__pycache__/problem.cpython-311.pyc": "x",
    "data/__pycache__/x": "x",
    "data/.hidden": "x",
    ".git/config": "x",
    "data/half.csv.part": "x",
}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """A kit with a manifest, and with what programs leave behind."""
    more = {"external_imports/helping/__init__.py": "", "README.md": "x", "manifest.yaml": MANIFEST, **PASSED_OVER}
    return write_kit(tmp_path / "kits" / "flowers", more=more)


def below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def put(desk: Desk, kit: Path, name: str = "flowers") -> Path:
    """The kit in the incoming folder, as rsync -a would leave it there."""
    return Path(shutil.copytree(kit, desk.folder(name, DATASETS), symlinks=True))


def datarun(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(DATARUN), *map(str, arguments)], capture_output=True, text=True, timeout=90)


def placed(folder: Path, case: Good | Malformed) -> Path:
    for name, content in case.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    "case", [case for case in MALFORMED_KITS if case.seen_by is SeenBy.MANIFEST], ids=lambda case: case.name
)
def test_a_malformed_manifest_of_a_kit_is_refused_by_field(case: Malformed) -> None:
    problems = refused(case.kind, case.files["manifest.yaml"].decode())

    assert case.expected_field in {problem.field for problem in problems}


@pytest.mark.parametrize("case", MALFORMED_KITS, ids=lambda case: case.name)
def test_checking_finds_what_a_daemon_would_refuse(tmp_path: Path, case: Malformed) -> None:
    assert check(placed(tmp_path / "kit", case))


PATHS = st.lists(st.sampled_from(["data", "Data", "x.csv", "..", "", "submissions", "problem.py"]), max_size=4)
DIGESTS = st.none() | st.sampled_from([{"bytes": 1, "sha256": "0" * 64}, {"bytes": -1}, 7])


@settings(max_examples=200, deadline=None)
@given(
    files=st.dictionaries(PATHS.map("/".join) | st.text(max_size=5), DIGESTS, max_size=5) | st.text(max_size=3),
    more=st.dictionaries(st.sampled_from(["name", "split", "user", "data_file", "x"]), st.text(max_size=3) | st.none()),
)
def test_any_files_are_a_kit_whose_paths_stay_inside_or_a_rejection(files: object, more: dict[str, object]) -> None:
    raw = yaml.safe_dump({"name": "flowers", "format": "ramp", "files": files} | more, allow_unicode=True)
    problems: list[Problem] = []
    paths: list[str] = []
    try:
        paths = list(parse_manifest(DATASETS, raw.encode("utf-8", "surrogatepass")).files)
    except Rejection as rejection:
        problems = rejection.problems

    assert all(str(problem).isprintable() for problem in problems)
    assert [f"/bundle/{path}" for path in paths] == [os.path.normpath(f"/bundle/{path}") for path in paths]
    assert len({path.lower() for path in paths}) == len(paths)


@pytest.mark.parametrize("case", GOOD_KITS, ids=lambda case: case.name)
def test_a_good_kit_is_taken_as_it_is(desk: Desk, case: Good) -> None:
    placed(desk.folder("flowers", DATASETS), case)
    assert [] == check(desk.folder("flowers", DATASETS))

    claimed = desk.claim(after=SETTLED)

    assert case.files == below(desk.spool.root / str(claimed.folder))
    assert case.files.keys() - {"manifest.yaml"} == claimed.files.keys()


def test_a_kit_becomes_a_value() -> None:
    manifest = parse_manifest(DATASETS, MANIFEST.encode())

    expected = DatasetManifest("flowers", "", (), "", Split(None), specific="problem.py", format="ramp")
    assert expected == manifest
    assert (("problem.py",), True) == (manifest.named_files, expected.takes_all)


def test_other_fields_of_a_kit_are_told_to_be_known_by_its_problem() -> None:
    fields = "target_column: x\nworkflow_elements: [y]\ndata_file: ../z\nextra_files: 3\nname: [1]\n"
    problems = refused(DATASETS, f"format: ramp\n{fields}")

    told = {problem.field for problem in problems if "problem.py of a RAMP kit knows it" in problem.expected}
    assert {"target_column", "workflow_elements", "data_file", "extra_files"} == told
    assert {"name"} == {problem.field for problem in problems} - told


@pytest.mark.parametrize(("path", "fits"), [
    ("x", True), ("data/x", True), ("p/__init__.py", True), ("a/b/c/d/e/f/g/h", True), ("__init__.py", False),
    ("a/b/c/d/e/f/g/h/i", False), ("../x", False), ("a/./b", False), ("a/\u200bb", False), ("a\udc80/b", False),
    ("a/reason.txt", False), ("", False), ("/", False), ("a/b.tmp", False), ("lost+found/b", False),
])  # fmt: skip
def test_which_paths_a_file_of_a_kit_may_have(path: str, fits: bool) -> None:
    assert fits is (file_path_fault(path) is None)


def test_a_path_of_ten_thousand_levels_costs_little_memory() -> None:
    deep = "a/" * 10_000 + "b"
    tracemalloc.start()

    assert [] == list(clashes([deep]))
    assert file_path_fault(deep)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 4_000_000


def test_all_files_of_a_kit_without_digests_are_taken_once_it_has_settled(desk: Desk, kit: Path) -> None:
    put(desk, kit)
    assert [] == desk.look(after=SETTLE_SECONDS - 1)

    claimed = desk.claim(after=2)

    whole = below(kit)
    assert {name: whole[name] for name in TAKEN | {"manifest.yaml"}} == below(desk.spool.root / str(claimed.folder))
    assert {"flowers.ipynb", "submissions", "__pycache__", "data/__pycache__"} == set(claimed.ignored)
    for name in TAKEN:
        assert hashlib.sha256(whole[name]).hexdigest() == claimed.files[name].sha256


def test_a_kit_with_digests_is_taken_at_once_and_only_what_it_declares(desk: Desk, kit: Path) -> None:
    pack(kit)
    (kit / "data" / "late.csv").write_text("x")
    put(desk, kit)

    claimed = desk.claim()

    assert claimed.files.keys() == TAKEN
    assert "data/late.csv" in claimed.ignored


def test_a_change_in_the_innermost_folder_begins_the_wait_anew(desk: Desk, kit: Path) -> None:
    bundle = put(desk, kit)
    desk.look(after=SETTLE_SECONDS - 0.5)
    (bundle / "data/flowers/train.csv").write_text("a,kind\n1,red\n2,white\n")

    assert [] == desk.look(after=SETTLE_SECONDS - 0.5)
    assert desk.claim(after=2)


@pytest.mark.parametrize("passed_over", ["submissions/starting_kit/estimator.py", "data/__pycache__/x", "data/.hidden"])
def test_a_change_in_what_is_passed_over_does_not_matter(desk: Desk, kit: Path, passed_over: str) -> None:
    bundle = put(desk, kit)
    desk.look(after=SETTLE_SECONDS - 0.5)
    with (bundle / passed_over).open("a") as file:
        file.write("more")

    assert desk.claim(after=1)


@pytest.mark.parametrize("packing", ["zip", "gztar"])
@pytest.mark.parametrize("top", [True, False])
@pytest.mark.parametrize("digested", [True, False])
def test_an_archive_of_a_kit_is_taken_like_its_folder(
    desk: Desk, kit: Path, packing: str, top: bool, digested: bool
) -> None:
    if digested:
        pack(kit)
    root, base = (kit.parent, "flowers") if top else (kit, None)
    archive = Path(shutil.make_archive(str(kit.parent / "packed"), packing, root, base))
    assert [] == check(archive)
    shutil.copy(archive, desk.folder(f"flowers{'.zip' if packing == 'zip' else '.tar.gz'}", DATASETS))
    put(desk, kit)

    digests = {}
    for claimed in desk.look(after=0 if digested else SETTLED):
        digests[claimed.bundle.name] = claimed.digest  # type: ignore[union-attr]
        assert claimed.files.keys() == TAKEN  # type: ignore[union-attr]

    assert (2, 1) == (len(digests), len(set(digests.values())))


LINKS: list[tuple[str, Callable[[Path], None], str]] = [
    ("data/link.csv", lambda path: path.symlink_to("/etc/passwd"), "a symbolic link"),
    ("data/more", lambda path: path.symlink_to("/etc"), "a symbolic link"),
    ("data/flowers/pipe", os.mkfifo, "a FIFO"),
]


@pytest.mark.parametrize(("place", "make", "found"), LINKS)
def test_what_is_no_regular_file_in_a_folder_is_refused_with_its_path(
    desk: Desk, kit: Path, place: str, make: Callable[[Path], None], found: str
) -> None:
    bundle = put(desk, kit)
    make(bundle / place)
    assert [place] == [problem.field for problem in check(bundle)]

    refusal = desk.refusal(after=SETTLED)

    assert [(place, found)] == [(problem.field, problem.found) for problem in refusal.problems]
    assert [] == desk.stored()


def test_a_folder_that_becomes_a_link_after_it_was_listed_is_not_followed(kit: Path, tmp_path: Path) -> None:
    source = FolderSource(os.open(kit, os.O_RDONLY | os.O_DIRECTORY), BOUNDS)
    secret = tmp_path / "secret"
    shutil.copytree(kit / "data/flowers", secret)
    shutil.rmtree(kit / "data/flowers")
    (kit / "data/flowers").symlink_to(secret)

    with pytest.raises(Rejection, match=r"data/flowers/train\.csv"):
        source.copy(["data/flowers/train.csv"], tmp_path, deadline=float("inf"))
    source.close()
    assert not list((tmp_path / "data").rglob("*.csv"))


def test_a_kit_renamed_after_it_was_opened_is_still_the_one_that_is_read(kit: Path, tmp_path: Path) -> None:
    source = FolderSource(os.open(kit, os.O_RDONLY | os.O_DIRECTORY), BOUNDS)
    kit.rename(tmp_path / "away")
    kit.symlink_to("/etc")
    (target := tmp_path / "target").mkdir()

    copied = source.copy(["data/flowers/train.csv"], target, deadline=float("inf"))

    source.close()
    assert ["data/flowers/train.csv"] == list(copied)
    assert (target / "data/flowers/train.csv").is_file()


def test_files_of_all_folders_count(tmp_path: Path, kit: Path) -> None:
    desk = Desk(tmp_path, bounds=Bounds(1 << 20, 40, 60.0))
    for folder in range(6):
        (kit / f"data/{folder}").mkdir()
        for number in range(6):
            (kit / f"data/{folder}/{number}").touch()
    put(desk, kit)

    assert "at most 40 files" == desk.refusal(after=SETTLED).problems[0].expected


def test_bytes_of_all_folders_count_and_nothing_is_left_in_the_store(tmp_path: Path, kit: Path) -> None:
    desk = Desk(tmp_path, bounds=Bounds(3000, 100, 60.0))
    (kit / "data/large").write_bytes(b"x" * 3000)
    put(desk, kit)

    assert "more than 3000 bytes" == desk.refusal(after=SETTLED).problems[0].found
    assert [] == desk.stored()


def test_folders_deeper_than_eight_levels_are_refused(desk: Desk, kit: Path) -> None:
    bundle = put(desk, kit)
    (bundle / "data/b/c/d/e/f/g/h").mkdir(parents=True)
    (bundle / "data/b/c/d/e/f/g/h/i").touch()

    assert "data/b/c/d/e/f/g/h" == desk.refusal(after=SETTLED).problems[0].field


@pytest.mark.parametrize("names", [("x.csv", "X.csv"), ("\u00e9.csv", "e\u0301.csv"), ("ends.", "x"), ("a\nb", "x")])
def test_names_that_cannot_be_kept_are_refused(desk: Desk, kit: Path, names: tuple[str, str]) -> None:
    bundle = put(desk, kit)
    for name in names:
        (bundle / "data" / name).touch()

    assert 1 == len(check(bundle))
    assert 1 == len(desk.refusal(after=SETTLED).problems)


def test_a_missing_problem_is_waited_for(desk: Desk, kit: Path) -> None:
    bundle = put(desk, kit)
    (bundle / "problem.py").rename(desk.spool.root / "aside")

    assert ("problem.py",) == desk.missing()
    (desk.spool.root / "aside").rename(bundle / "problem.py")
    assert desk.claim(after=SETTLED + 11)


def test_a_file_in_a_folder_that_is_cut_short_is_waited_for(desk: Desk, kit: Path) -> None:
    pack(kit)
    whole = (kit / "data/flowers/train.csv").read_bytes()
    bundle = put(desk, kit)
    (bundle / "data/flowers/train.csv").write_bytes(whole[:-3])

    assert (f"data/flowers/train.csv: {len(whole) - 3} of {len(whole)} bytes are there",) == desk.missing()
    (bundle / "data/flowers/train.csv").write_bytes(whole)
    assert desk.claim(after=11)


def test_a_file_in_a_folder_that_somebody_writes_is_waited_for(desk: Desk, kit: Path) -> None:
    bundle = put(desk, kit)
    with (bundle / "data/flowers/train.csv").open("a"):
        assert [] == desk.look(after=SETTLED)

    assert desk.claim(after=11)


def test_folders_of_a_bundle_that_is_no_kit_are_passed_over_as_ever(desk: Desk, tmp_path: Path) -> None:
    manifest = b"name: iris\ntarget_column: b\nworkflow_elements: [classifier]\ndata_file: iris.csv\n"
    folder = desk.folder("iris", DATASETS)
    for number in range(BOUNDS.files):
        (folder / "data" / str(number)).mkdir(parents=True)
    (folder / "problem.py").write_text("# format: ramp")
    (folder / "data" / "link").symlink_to("/etc/passwd")
    (folder / "iris.csv").write_text("a,b\n1,2\n")
    (folder / "manifest.yaml").write_bytes(manifest)

    claimed = desk.claim(after=SETTLED)

    assert (("data", "problem.py"), {"iris.csv"}) == (claimed.ignored, claimed.files.keys())


def test_every_folder_and_file_of_a_kit_is_made_durable(desk: Desk, kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    durable: list[Path] = []
    monkeypatch.setattr("datarun_daemon.disk.make_durable", lambda paths, below: durable.extend(paths))
    put(desk, kit)

    claimed = desk.claim(after=SETTLED)

    folder = desk.spool.root / str(claimed.folder)
    assert {folder, *folder.rglob("*")} <= set(durable)


def test_a_kit_that_is_refused_lies_whole_in_rejected(desk: Desk, kit: Path) -> None:
    (kit / "data" / "link").symlink_to("/etc/passwd")
    put(desk, kit)
    refusal = desk.refusal(after=SETTLED)

    where = desk.inbox.refuse(refusal.bundle, refusal.problems)

    rejected = desk.spool.root / str(where)
    assert below(kit) == {name: data for name, data in below(rejected).items() if name != "REASON.txt"}
    assert "data/link" in (rejected / "REASON.txt").read_text()


def test_packing_a_kit_again_names_what_came_and_forgets_what_went(kit: Path) -> None:
    (kit / "data/old").touch()
    pack(kit)
    (kit / "data/old").unlink()
    (kit / "data/new").touch()
    assert ["data/old"] == [problem.field for problem in check(kit)]

    pack(kit)

    assert [] == check(kit)
    assert TAKEN | {"data/new"} == parse_manifest(DATASETS, (kit / "manifest.yaml").read_bytes()).files.keys()


def test_a_submitted_kit_lies_packed_in_the_incoming_folder(tmp_path: Path, kit: Path) -> None:
    spool = Spool.create(tmp_path / "spool")

    sent = submit(kit, spool.root)

    assert TAKEN | {"manifest.yaml"} == below(sent).keys()
    assert parse_manifest(DATASETS, (sent / "manifest.yaml").read_bytes()).digested
    assert MANIFEST == (kit / "manifest.yaml").read_text()


def test_a_kit_of_more_files_than_a_manifest_can_name_is_sent_without_digests(tmp_path: Path, kit: Path) -> None:
    spool = Spool.create(tmp_path / "spool")
    for number in range(3000):
        (kit / f"data/image-{number}.txt").touch()
    with pytest.raises(TooManyFiles, match="without `files:`"):
        pack(kit)

    sent = submit(kit, spool.root)

    assert MANIFEST == (sent / "manifest.yaml").read_text()
    assert 3000 == len(list(sent.glob("data/image-*.txt")))


@pytest.mark.parametrize("files", ["[estimator.py]", "[feature_extractor.py, table.csv]", "[solution.py, weights.bin]"])
def test_a_submission_may_have_any_files_if_one_is_python(files: str) -> None:
    raw = f"submission: {{id: a, dataset: flowers, files: {files}}}\ncv: {{class: KFold}}\n"

    manifest = parse_manifest(FOLDS, raw.encode())

    assert isinstance(manifest, FoldsManifest)
    assert yaml.safe_load(files) == list(manifest.submission.files)


def test_a_daemon_accepts_a_kit_and_stores_it_as_it_was(daemon: RunningDaemon, kit: Path) -> None:
    done = datarun("submit", kit, "--spool", daemon.spool.root, "--wait")
    assert (0, "") == (done.returncode, done.stderr), done.stdout

    (accepted,) = daemon.catalog("DatasetAccepted")
    stored = below(daemon.spool.root / accepted["folder"])
    whole = below(kit)
    for name in TAKEN:
        assert whole[name] == stored[name]
    told = hashlib.sha256(stored["manifest.yaml"])
    for name in sorted(TAKEN):
        told.update(f"\0{name}\0{len(whole[name])}\0{hashlib.sha256(whole[name]).hexdigest()}".encode())
    assert told.hexdigest() == accepted["digest"]
    assert not (daemon.spool.incoming_of(BundleKind.DATASETS) / "flowers").exists()
