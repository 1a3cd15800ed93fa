"""What a client may write in a manifest and in index files, and what it is told if it wrote something else."""

from __future__ import annotations

import math
import runpy
import time
from array import array
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from datarun_daemon.core.admission import missing_elements
from datarun_daemon.core.errors import Problem, Rejection
from datarun_daemon.core.model import BundleKind, Priority, Split
from datarun_daemon.spool import indices, yaml_reading
from datarun_daemon.spool.indices import (
    FoldIndices,
    IndexFile,
    IndexValues,
    out_of_range,
    pack_indices,
    read_index_file,
    unpack,
)
from datarun_daemon.spool.manifest import (
    CvSpec,
    DatasetManifest,
    FoldsManifest,
    parse_manifest,
)
from datarun_daemon.spool.names import file_name_fault, id_fault, is_temporary, printable
from datarun_daemon.spool.yaml_reading import read_yaml
from tests.bundle_cases import refused
from tests.malformed import GOOD, IRIS_TRAIN_ROWS, MALFORMED, Good, Malformed, SeenBy, npy, rest_base64

BY_NAME = {bundle.name: bundle for bundle in GOOD}


def laid_down(bundle: Good | Malformed, folder: Path) -> Path:
    for name, data in bundle.files.items():
        (folder / name).write_bytes(data)
    return folder


def problems_of(bundle: Malformed, folder: Path) -> list[Problem]:
    """What the steps up to the dataset's split find wrong, without any daemon."""
    try:
        manifest = parse_manifest(bundle.kind, bundle.files["manifest.yaml"])
        if not isinstance(manifest, FoldsManifest) or bundle.seen_by is SeenBy.INTAKE:
            return []
        packed = pack_indices(manifest.folds, laid_down(bundle, folder), folder / ".packed.npy")
    except Rejection as rejection:
        return rejection.problems
    target = folder / ".packed.npy"
    faults = (out_of_range(target, fold, number, IRIS_TRAIN_ROWS) for number, fold in enumerate(packed))
    return [fault for fault in faults if fault]


def problems_in(kind: BundleKind, raw: bytes) -> list[Problem]:
    try:
        parse_manifest(kind, raw)
    except Rejection as rejection:
        return rejection.problems
    return []


@pytest.mark.parametrize("bundle", [m for m in MALFORMED if m.seen_by is not SeenBy.INTAKE], ids=lambda m: m.name)
def test_the_reason_names_the_field(bundle: Malformed, tmp_path: Path) -> None:
    assert bundle.expected_field in [problem.field for problem in problems_of(bundle, tmp_path)]


@pytest.mark.parametrize("bundle", MALFORMED, ids=lambda m: m.name)
def test_a_reason_fits_on_lines_of_visible_characters_in_plain_words(bundle: Malformed, tmp_path: Path) -> None:
    problems = problems_of(bundle, tmp_path)

    assert all(str(problem).isprintable() and len(str(problem)) < 500 for problem in problems)
    jargon = ("str_type", "Input should", "pydantic", "NoneType", "dict_type", "Unreadable", "something else")
    assert not [problem for problem in problems for word in jargon if word in str(problem)]


@pytest.mark.parametrize("bundle", [m for m in MALFORMED if m.seen_by is SeenBy.INTAKE], ids=lambda m: m.name)
def test_a_manifest_tells_which_files_are_missing_or_not_whole(bundle: Malformed) -> None:
    manifest = parse_manifest(bundle.kind, bundle.files["manifest.yaml"])

    assert bundle.expected_field in manifest.named_files


@pytest.mark.parametrize("bundle", GOOD, ids=lambda good: good.name)
def test_a_good_bundle_is_read(bundle: Good, tmp_path: Path) -> None:
    manifest = parse_manifest(bundle.kind, bundle.files["manifest.yaml"])
    assert set(manifest.named_files) <= bundle.files.keys()
    if isinstance(manifest, FoldsManifest):
        packed = pack_indices(manifest.folds, laid_down(bundle, tmp_path), tmp_path / ".packed.npy")
        assert [fold.id for fold in manifest.folds] == [fold.id for fold in packed]


def test_there_are_many_ways_to_be_malformed_and_each_has_a_name() -> None:
    assert len({bundle.name for bundle in MALFORMED}) == len(MALFORMED) > 65


def test_all_errors_of_a_manifest_are_told_at_once() -> None:
    problems = refused(
        BundleKind.DATASETS,
        "name: 2024-05-01\ntarget_colum: x\nworkflow_elements: [clasifier]\ndata_file: ../x.csv\nsplit: custom\n"
        "files: {x.csv: {bytes: -1}}\n",
    )

    expected = {
        "name", "target_column", "target_colum", "workflow_elements", "data_file", "split",
        "files[x.csv].bytes", "files[x.csv].sha256", "files[x.csv]",
    }  # fmt: skip
    assert expected == {problem.field for problem in problems}


def test_errors_in_several_folds_are_told_at_once_with_their_positions() -> None:
    problems = refused(
        BundleKind.FOLDS,
        "submission: {id: 1}\nfolds: [{id: a, train_is: [0], test_is: [0]}, {id: a, train_is: [], test_is: [1]}, 7]",
    )

    assert [p.field for p in problems] == ["folds[0].test_is", "folds[1].train_is", "folds[2]", "folds[1].id"]


def test_a_manifest_with_thousands_of_errors_has_a_short_reason() -> None:
    problems = refused(BundleKind.FOLDS, "submission: {id: 1}\nfolds: [" + "7, " * 20_000 + "7]")

    assert Problem("manifest.yaml", "19951 more problems", "none") == problems[-1]


@pytest.mark.parametrize(
    ("manifest", "meant"),
    [("nmae: iris", "name"), ("split: {held_out_tets: 0.5}", "held_out_test"), ("data-file: x", "data_file")],
)
def test_a_misspelt_field_is_told_what_may_be_meant(manifest: str, meant: str) -> None:
    problems = refused(BundleKind.DATASETS, manifest)

    assert any(f"did you mean {meant}?" in problem.expected for problem in problems)


def test_a_syntax_error_names_line_and_column() -> None:
    [problem] = refused(BundleKind.DATASETS, "name: iris\nsplit: {held_out_test: 0.5\ndata_file: x\n")

    assert "line 3" in problem.found


def test_a_dataset_manifest_becomes_a_value() -> None:
    good = BY_NAME["iris with digests, workflow as text"]
    manifest = parse_manifest(good.kind, good.files["manifest.yaml"])

    assert isinstance(manifest, DatasetManifest)
    assert manifest.workflow_elements == ("feature_extractor", "classifier", "calibrator")
    assert Split(0.5, 42) == manifest.split
    assert manifest.digested


def test_a_fold_manifest_becomes_a_value() -> None:
    manifest = parse_manifest(BundleKind.FOLDS, BY_NAME["each kind of rows"].files["manifest.yaml"])

    assert isinstance(manifest, FoldsManifest)
    assert (
        manifest.submission.id, manifest.submission.dataset, manifest.submission.files,
    ) == ("30", "iris", ("classifier.py",))  # fmt: skip
    assert [f.priority for f in manifest.folds] == [Priority.HIGH, Priority.LOW, Priority.HIGH, Priority.HIGH]
    assert IndexFile("little.npy") == manifest.folds[0].train_is
    assert IndexValues(array("q", [40, 41])) == manifest.folds[3].test_is
    assert frozenset({"submission_fold"}) == manifest.force
    assert (
        manifest.named_files
    ) == ("classifier.py", "little.npy", "big.npy", "short.npy", "column.csv", "line.csv", "list.json")
    assert not manifest.digested


def test_folds_by_a_splitter_become_a_value() -> None:
    manifest = parse_manifest(BundleKind.FOLDS, BY_NAME["folds by a splitter"].files["manifest.yaml"])

    assert isinstance(manifest, FoldsManifest)
    assert CvSpec("ShuffleSplit", {"n_splits": 8, "test_size": 0.2}) == manifest.cv
    assert manifest.folds == ()


def test_who_a_bundle_is_for_is_read() -> None:
    good = BY_NAME["folds for somebody else"]

    assert parse_manifest(good.kind, good.files["manifest.yaml"]).user == "1003"
    assert parse_manifest(good.kind, BY_NAME["one fold"].files["manifest.yaml"]).user is None


@pytest.mark.parametrize("word", ["L", "l", "low", "LOW", "Low"])
def test_priorities_are_read_in_any_case(word: str) -> None:
    manifest = parse_manifest(
        BundleKind.FOLDS, f"submission: {{id: 1}}\ncv: {{class: KFold}}\npriority: {word}".encode()
    )

    assert isinstance(manifest, FoldsManifest)
    assert Priority.LOW is manifest.priority


def test_the_files_that_a_workflow_needs_and_a_submission_lacks_are_known() -> None:
    assert missing_elements(
        ["feature_extractor.py", "regressor.py"], ["feature_extractor", "classifier"]
    ) == ("classifier.py",)


def test_yaml_words_are_read_as_in_yaml_1_2() -> None:
    read = read_yaml(b"{a: no, b: 12:30:45, c: 1e-3, d: 1_000, e: 0x1F, f: ~, g: true, h: '2024-05-01', 1: y}")

    assert read == {
        "a": "no", "b": "12:30:45", "c": 1e-3, "d": "1_000", "e": "0x1F", "f": None, "g": True, "h": "2024-05-01",
        "1": "y",
    }  # fmt: skip


def test_the_pure_python_parser_reads_and_refuses_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(yaml_reading, "_LOADER", yaml.SafeLoader)
    small = [m for m in MALFORMED if m.seen_by is not SeenBy.INTAKE and len(m.files["manifest.yaml"]) < 2000]

    assert [m.name for m in small if not problems_of(m, tmp_path)] == []
    for good in GOOD:
        parse_manifest(good.kind, good.files["manifest.yaml"])


MANIFEST_WORDS = st.sampled_from(
    ["name", "folds", "files", "submission", "id", "train_is", "cv", "class", ": ", "\n", "- ", "  ",
     "{", "}", "[", "]", ", ", "'", '"', "&a", "*a", "!!x", "|", ">", "#", "?", "\t", "\\u202e", "1", "-1", ".nan",
     "2024-01-01", "0x", "é", "eJw", "rows.npy", "<<", "%YAML 1.1", "---", "...", "null", "true",
     "\x00", "\x85", "9" * 30]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    kind=st.sampled_from(BundleKind),
    raw=st.binary(max_size=400) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.lists(MANIFEST_WORDS, max_size=60).map(lambda words: "".join(words).encode()),
)  # fmt: skip
def test_any_bytes_are_a_manifest_or_a_rejection(kind: BundleKind, raw: bytes) -> None:
    assert all(str(problem).isprintable() for problem in problems_in(kind, raw))


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
FIELDS = ["name", "target_column", "workflow_elements", "data_file", "split", "files", "submission", "folds", "cv",
          "priority", "force", "id", "train_is", "test_is", "dataset", "action", "held_out_test", "class",
          "extra_files", "new", "user"]  # fmt: skip
KEYS = st.sampled_from(FIELDS) | st.text(max_size=5)
NESTED = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(BundleKind),
    value=st.dictionaries(st.sampled_from(FIELDS), NESTED, max_size=10),
    action=st.sampled_from(["split", "custom_split", "predictions", "cancel", "priority", "rerun", None]),
)
def test_any_values_in_any_fields_are_a_manifest_or_a_rejection(
    kind: BundleKind, value: dict[str, object], action: str | None
) -> None:
    value |= {"action": action} if kind is BundleKind.REQUESTS and action else {}
    raw = yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")

    assert all(str(problem).isprintable() for problem in problems_in(kind, raw))


@settings(max_examples=300, deadline=None)
@given(data=st.data(), suffix=st.sampled_from([".npy", ".csv", ".json"]))
def test_any_bytes_are_row_numbers_or_a_rejection(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, suffix: str
) -> None:
    whole = {".npy": npy(range(10)), ".csv": b"row\n1\n2\n30\n", ".json": b"[1, 2, 30]"}[suffix]
    at = data.draw(st.integers(0, len(whole)))
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(whole[:at] + data.draw(st.binary(max_size=20)) + whole[at + data.draw(st.integers(0, 5)) :])
    try:
        rows = read_index_file(path)
    except Rejection:
        return
    assert len(set(rows)) == len(rows) > 0
    assert min(rows) >= 0


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.integers(0, 127), unique=True, min_size=1),
    kind=st.sampled_from(["<i8", ">i8", "<i4", ">i4", "<u2", ">u2", "|i1", "|u1", "<u8", ">u8"]),
    version=st.sampled_from([(1, 0), (2, 0), (3, 0)]),
)
def test_what_numpy_writes_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[int], kind: str, version: tuple[int, int]
) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.npy"
    with path.open("wb") as file:
        np.lib.format.write_array(file, np.array(rows, dtype=kind), version=version)

    assert rows == list(read_index_file(path))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "3\n1\n2\n"), ("a.csv", "3\r\n1\r\n2"), ("a.csv", "train_is\n3\n1\n2\n"), ("a.csv", "3,1,2"),
        ("a.csv", " 3, 1, 2,\n"), ("a.csv", "\ufeffrow\n3\n1\n2\n"), ("a.csv", '"row"\n3\n1\n2\n'),
        ("a.csv", "# rows\n3\n1\n2"),
        ("a.json", "[3, 1, 2]"), ("a.json", "\ufeff[3,\n1,\n2]\n"),
    ],
)  # fmt: skip
def test_text_files_of_rows_are_read_in_their_order(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")

    assert list(read_index_file(tmp_path / name)) == [3, 1, 2]


def test_packed_rows_are_one_array_that_numpy_reads(tmp_path: Path) -> None:
    good = BY_NAME["each kind of rows"]
    manifest = parse_manifest(good.kind, good.files["manifest.yaml"])
    assert isinstance(manifest, FoldsManifest)

    packed = pack_indices(manifest.folds, laid_down(good, tmp_path), tmp_path / ".packed.npy")

    rows = np.load(tmp_path / ".packed.npy", allow_pickle=False)
    assert rows.tolist() == [0, 1, 2, 60, 61, 3, 4, 70, 71, 5, 6, 7, 8, 9, 10, 11, 40, 41]
    assert np.dtype("<i8") == rows.dtype
    assert FoldIndices("102", Priority.LOW, offset=5, n_train=2, n_test=2, max_index=71) == packed[1]
    assert (array("q", [9, 10, 11]), array("q", [40, 41])) == unpack(tmp_path / ".packed.npy", packed[3])


def test_a_refused_bundle_leaves_no_packed_rows_and_tells_of_every_fold(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("1\n1\n")
    folds = "[{id: 1, train_is: bad.csv, test_is: [5]}, {id: 2, train_is: [0], test_is: bad.csv}]"
    manifest = parse_manifest(BundleKind.FOLDS, f"submission: {{id: 1}}\nfolds: {folds}".encode())
    assert isinstance(manifest, FoldsManifest)

    with pytest.raises(Rejection) as caught:
        pack_indices(manifest.folds, tmp_path, tmp_path / ".packed.npy")

    assert [problem.field for problem in caught.value.problems] == ["folds[0].train_is", "folds[1].test_is"]
    assert not (tmp_path / ".packed.npy").exists()


def test_long_lists_are_checked_for_duplicates_and_overlap_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(indices, "_SET_ENTRIES", 5)
    np.save(tmp_path / "long.npy", np.arange(10))
    np.save(tmp_path / "twice.npy", np.array([*range(10), 4]))

    with pytest.raises(Rejection, match="row 4 twice, at positions 4 and 10"):
        read_index_file(tmp_path / "twice.npy")
    fault = indices.overlap_fault(array("q", range(10)), array("q", [20, 30, 40, 7, 8, 9]))
    assert fault is not None
    assert "row 7 at position 3" in fault.found
    assert indices.overlap_fault(array("q", range(10)), array("q", range(10, 17))) is None
    assert len(read_index_file(tmp_path / "long.npy")) == 10


def test_rows_as_the_rest_api_took_them_are_read() -> None:
    long = rest_base64(range(20_000))
    manifest = parse_manifest(
        BundleKind.FOLDS, f"submission: {{id: 1}}\nfolds: [{{id: 1, train_is: {long}, test_is: [20000]}}]".encode()
    )

    assert isinstance(manifest, FoldsManifest)
    assert IndexValues(array("q", range(20_000))) == manifest.folds[0].train_is


def test_a_full_size_manifest_is_refused_or_read_without_end_being_far() -> None:
    started = time.process_time()
    for unit in ("[", "- ", "? ", "{a: ", "a: ", "&a ", "*a ", "'", '"', "| ", "#", "%", "1, ", "a\n", "\t", "--- "):
        raw = (unit * (256 * 1024))[: 256 * 1024].encode()
        for kind in BundleKind:
            with pytest.raises(Rejection):
                parse_manifest(kind, raw)
    # A quadratic parser would take minutes: the bound is far from both.
    assert time.process_time() - started < 30


@pytest.mark.parametrize("name", ["a.csv", "données.csv", "a b.csv", "-.csv", "a..b", "x" * 200])
def test_plain_names_are_fit_for_files(name: str) -> None:
    assert file_name_fault(name) is None


@pytest.mark.parametrize("text", ["24", "team_a", "Iris-2.1", "0", "x" * 100])
def test_slugs_and_integers_are_fit_as_ids(text: str) -> None:
    assert id_fault(text) is None


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "a b", "é", "-a", "a.", "a.part", "a\n", "x" * 101])
def test_other_texts_are_not_fit_as_ids(text: str) -> None:
    assert id_fault(text) is not None


@pytest.mark.parametrize(
    "name",
    [".x", "a.part", "a.filepart", "a.tmp", "~$a.xlsx", ".~tmp~", "._a", ".DS_Store", "Thumbs.db", "desktop.ini",
     "@eaDir", ".nfs001", ".fuse_hidden01", "lost+found"],
)  # fmt: skip
def test_files_on_their_way_and_desktops_own_are_known(name: str) -> None:
    assert is_temporary(name)


def example_bundles(dest: Path) -> list[Path]:
    script = Path(__file__).resolve().parent.parent / "examples" / "make_bundles.py"
    made: list[Path] = runpy.run_path(str(script))["make_bundles"](dest)
    return made


def test_the_example_bundles_are_good_and_fit_their_datasets(tmp_path: Path) -> None:
    rows: dict[str, int] = {}
    encodings: set[str] = set()
    for folder in example_bundles(tmp_path):
        manifest = parse_manifest(BundleKind(folder.parent.name), (folder / "manifest.yaml").read_bytes())
        assert isinstance(manifest, DatasetManifest | FoldsManifest)
        assert manifest.digested
        assert all((folder / name).stat().st_size == digest.bytes for name, digest in manifest.files.items())
        if isinstance(manifest, DatasetManifest):
            assert manifest.split is not None
            assert manifest.split.held_out_test is not None
            n_rows = len((folder / manifest.data_file).read_bytes().splitlines()) - 1
            rows[manifest.name] = n_rows - math.ceil(n_rows * manifest.split.held_out_test)
            continue
        packed = pack_indices(manifest.folds, folder, tmp_path / "packed.npy")
        assert all(fold.max_index < rows[manifest.submission.dataset or ""] for fold in packed)
        sources = [fold.train_is for fold in manifest.folds]
        encodings |= {Path(source.name).suffix if isinstance(source, IndexFile) else "inline" for source in sources}
        encodings |= {"cv"} if manifest.cv else set()
    assert len(rows) == 6
    assert encodings == {".npy", ".csv", ".json", "inline", "cv"}


def test_the_wrong_examples_are_refused_for_more_than_one_reason(tmp_path: Path) -> None:
    example_bundles(tmp_path)
    for manifest_file in sorted((tmp_path / "wrong").glob("*/*/manifest.yaml")):
        folder = manifest_file.parent
        with pytest.raises(Rejection) as caught:  # noqa: PT012
            manifest = parse_manifest(BundleKind(folder.parent.name), manifest_file.read_bytes())
            assert isinstance(manifest, FoldsManifest)
            pack_indices(manifest.folds, folder, tmp_path / "packed.npy")
        assert len(caught.value.problems) > 1


def test_untrusted_text_is_shown_on_one_short_line() -> None:
    assert printable("a\n\x1b[31m\u202eb") == "a\\n\\x1b[31m\\u202eb"
    assert len(printable("x" * 1000)) == 80
