"""Bundles that must be refused, and some that must not: a table for the tests of reading and of the daemon.

Each malformed bundle says which field its reason must name, and at which step it can be seen first.
The folds are meant for the iris dataset of ``GOOD``, whose training set has 75 rows.
"""

from __future__ import annotations

import base64
import json
import zlib

from tests.bundle_cases import (
    CLASSIFIER,
    DATASETS,
    FOLDS,
    IRIS_TRAIN_ROWS,
    Good,
    Malformed,
    SeenBy,
    digest,
    npy,
    rest_base64,
)
from tests.malformed_custom import GOOD_CUSTOM, MALFORMED_CUSTOM
from tests.malformed_requests import GOOD_REQUESTS, MALFORMED_REQUESTS

__all__ = ["GOOD", "IRIS_TRAIN_ROWS", "MALFORMED", "Good", "Malformed", "SeenBy", "npy", "rest_base64"]


def _iris_csv() -> bytes:
    """150 rows that two columns separate: enough of iris for folds to run on."""
    rows = [f"{i % 50 / 10},{i // 50},{('setosa', 'versicolor', 'virginica')[i // 50]}" for i in range(150)]
    return "\n".join(["length,width,species", *rows, ""]).encode()


IRIS_CSV = _iris_csv()

_DATASET = """\
name: iris
target_column: species
workflow_elements: [classifier]
data_file: iris.csv
split: {held_out_test: 0.5, random_state: 42}
"""
_FOLD = "{id: 11, train_is: [0, 1, 2], test_is: [3, 4]}"
_SUBMISSION = "{id: 24, dataset: iris, files: [classifier.py]}"


def _dataset(name: str, expected_field: str, manifest: str | bytes, **files: bytes) -> Malformed:
    raw = manifest.encode() if isinstance(manifest, str) else manifest
    return Malformed(name, DATASETS, {"manifest.yaml": raw, "iris.csv": IRIS_CSV} | files, expected_field)


def _mended(name: str, expected_field: str, line: str) -> Malformed:
    """The good dataset manifest with one line in place of the one of the same field (or one more)."""
    field = line.split(":", maxsplit=1)[0]
    kept = [old for old in _DATASET.splitlines() if not old.startswith(f"{field}:")]
    return _dataset(name, expected_field, "\n".join([*kept, line, ""]))


def _without(name: str, field: str) -> Malformed:
    kept = [old for old in _DATASET.splitlines() if not old.startswith(f"{field}:")]
    return _dataset(name, field, "\n".join([*kept, ""]))


def _folds_manifest(
    *, submission: str = _SUBMISSION, folds: str | None = f"[{_FOLD}]", more: str = ""
) -> str:
    lines = [f"submission: {submission}", *([f"folds: {folds}"] if folds is not None else []), more, ""]
    return "\n".join(lines)


def _folds(name: str, expected_field: str, **fields: str | None) -> Malformed:
    manifest = _folds_manifest(**fields)  # type: ignore[arg-type]
    files = {"manifest.yaml": manifest.encode(), "classifier.py": CLASSIFIER}
    return Malformed(name, FOLDS, files, expected_field)


def _rows(name: str, expected_field: str, train: str, test: str = "[3, 4]") -> Malformed:
    folds = f"[{{id: 11, train_is: {train}, test_is: {test}}}]"
    return _folds(name, f"folds[0].{expected_field}", folds=folds)


def _index_file(
    name: str, file_name: str, data: bytes | None, *, test: str = "[70]", seen_by: SeenBy = SeenBy.INDICES,
    expected_field: str = "folds[0].train_is",
) -> Malformed:  # fmt: skip
    manifest = _folds_manifest(folds=f"[{{id: 11, train_is: {file_name}, test_is: {test}}}]")
    files = {"manifest.yaml": manifest.encode(), "classifier.py": CLASSIFIER}
    if data is not None:
        files[file_name] = data
    return Malformed(name, FOLDS, files, expected_field, seen_by)


_YAML = (
    _dataset("an empty file", "manifest.yaml", b""),
    _dataset("only comments", "manifest.yaml", b"# nothing\n\n"),
    _dataset("a list at the top", "manifest.yaml", b"- name: iris\n"),
    _dataset("a text at the top", "manifest.yaml", b"iris\n"),
    _dataset("a number at the top", "manifest.yaml", b"12\n"),
    _dataset("binary data", "manifest.yaml", bytes(range(256)) * 4),
    _dataset("latin-1", "manifest.yaml", _DATASET.encode() + b"# caf\xe9\n"),
    _dataset("UTF-16", "manifest.yaml", _DATASET.encode("utf-16")),
    _dataset("a NUL character", "manifest.yaml", _DATASET.encode() + b"# \x00\n"),
    _dataset("an escape sequence for terminals", "manifest.yaml", _DATASET.encode() + b"# \x1b[31m\n"),
    _dataset("encoded surrogates", "manifest.yaml", _DATASET.encode() + b"# \xed\xa0\x80\n"),
    _dataset("an escaped surrogate", "manifest.yaml", _DATASET + 'files: {"\\ud800": 1}\n'),
    _dataset("more than 256 KB", "manifest.yaml", _DATASET + "#" * 256 * 1024),
    _dataset("an unclosed bracket", "manifest.yaml", _DATASET + "files: {iris.csv: [\n"),
    _dataset("an unclosed quote", "manifest.yaml", _DATASET + "files: 'iris\n"),
    _dataset("a tab as indentation", "manifest.yaml", "split:\n\theld_out_test: 0.5\n"),
    _dataset("a colon in a plain text", "manifest.yaml", "name: iris: the flowers\n"),
    _dataset("a cut-off manifest", "manifest.yaml", _DATASET[:-5]),
    _dataset("two documents", "manifest.yaml", f"{_DATASET}---\n{_DATASET}"),
    _dataset("JSON followed by more", "manifest.yaml", '{"name": "iris"} x\n'),
    _dataset("deep nesting", "files" + "[0]" * 15, _DATASET + "files: " + "[" * 5000 + "]" * 5000),
    _dataset("deep nesting that never ends", "files" + "[0]" * 15, _DATASET + "files: " + "[" * 100_000),
    _dataset("deep nesting of keys", "manifest.yaml", "? " * 50_000),
    _dataset("a list as a key", "manifest.yaml", _DATASET + "[a, b]: 1\n"),
    _dataset("a key twice", "name", _DATASET + "name: iris2\n"),
    _mended("a nested key twice", "files[iris.csv].bytes", "files: {iris.csv: {bytes: 1, bytes: 2}}"),
    _dataset("a key twice, once in quotes", "name", _DATASET + '"name": iris2\n'),
    _mended("an alias", "data_file", "data_file: *name"),
    _dataset("an anchor and its alias", "name", _DATASET.replace("name:", "name: &x") + "files: *x\n"),
    _dataset("a merge key", "<<", _DATASET + "<<: {name: x}\n"),
    _dataset("many laughs", "a", "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n" + _DATASET),
    _mended("a tag that would run code", "name", "name: !!python/object/apply:os.system [true]"),
    _mended("a harmless tag", "name", "name: !!str iris"),
    _mended("a date as a name", "name", "name: 2024-05-01"),
    _mended("a time as a name", "name", "name: 2024-05-01 10:00:00"),
    _mended("a leading zero", "name", "name: 007"),
    _mended("NaN", "split.held_out_test", "split: {held_out_test: .nan}"),
    _mended("infinity", "split.held_out_test", "split: {held_out_test: -.inf}"),
    _mended("a number beyond floats", "split.held_out_test", "split: {held_out_test: 1e999}"),
    _mended("an integer of 5000 digits", "split.random_state", f"split: {{random_state: {'9' * 5000}}}"),
)

_DATASETS = (
    _without("no name", "name"),
    _without("no target column", "target_column"),
    _without("no workflow", "workflow_elements"),
    _without("no data file", "data_file"),
    _dataset("an unknown field", "colour", _DATASET + "colour: blue\n"),
    _dataset("a misspelt field", "target_colum", _DATASET.replace("target_column", "target_colum")),
    _mended("a name with a slash", "name", "name: ../iris"),
    _mended("a name with spaces", "name", "name: the iris flowers"),
    _mended("an empty name", "name", "name: ''"),
    _mended("a name of 200 characters", "name", f"name: {'i' * 200}"),
    _mended("a name that is true", "name", "name: true"),
    _mended("a name that is a list", "name", "name: [iris]"),
    _mended("a name that is nothing", "name", "name:"),
    _mended("a target column that is a number", "target_column", "target_column: 4"),
    _mended("a target column with a newline", "target_column", 'target_column: "spe\\ncies"'),
    _mended("an unknown element", "workflow_elements", "workflow_elements: [clasifier]"),
    _mended("an element twice", "workflow_elements", "workflow_elements: classifier, classifier"),
    _mended("elements in wrong order", "workflow_elements", "workflow_elements: calibrator, classifier"),
    _mended("two predictors", "workflow_elements", "workflow_elements: [classifier, regressor]"),
    _mended("a calibrated regressor", "workflow_elements", "workflow_elements: [regressor, calibrator]"),
    _mended("no predictor", "workflow_elements", "workflow_elements: [feature_extractor]"),
    _mended("no element", "workflow_elements", "workflow_elements: []"),
    _mended("elements as numbers", "workflow_elements", "workflow_elements: [1, 2]"),
    _mended("a data file elsewhere", "data_file", "data_file: ../../etc/passwd"),
    _mended("two data files", "data_file", "data_file: [iris.csv, more.csv]"),
    _mended("an absolute data file", "data_file", "data_file: /etc/passwd"),
    _mended("a data file with a backslash", "data_file", "data_file: 'data\\iris.csv'"),
    _mended("a hidden data file", "data_file", "data_file: .iris.csv"),
    _mended("a data file that is the parent", "data_file", "data_file: .."),
    _mended("the manifest as data file", "data_file", "data_file: manifest.yaml"),
    _mended("the reason as data file", "data_file", "data_file: Reason.txt"),
    _mended("a data file turned around by bidi", "data_file", 'data_file: "iris\\u202Evsc"'),
    _mended("a data file with a control character", "data_file", 'data_file: "iris\\x07.csv"'),
    _mended("a data file of 300 characters", "data_file", f"data_file: {'i' * 300}.csv"),
    _mended("a data file that is on its way", "data_file", "data_file: iris.csv.part"),
    _mended("extra files without a Python file", "extra_files", "extra_files: [more.csv]"),
    _mended("extra files as text", "extra_files", "extra_files: specific.py"),
    _mended("a custom split of a CSV file", "split", "split: custom"),
    _mended("a user with a space", "user", "user: alice b"),
    _mended("a user that is a path", "user", "user: ../alice"),
    _mended("a user of 101 characters", "user", f"user: {'a' * 101}"),
    _mended("a user that is a list", "user", "user: [alice]"),
    _mended("a split that is a number", "split", "split: 0.5"),
    _mended("a split without a share", "split.held_out_test", "split: {random_state: 1}"),
    _mended("a share in percent", "split.held_out_test", "split: {held_out_test: 70}"),
    _mended("a share of 0", "split.held_out_test", "split: {held_out_test: 0}"),
    _mended("a share of 1.0", "split.held_out_test", "split: {held_out_test: 1.0}"),
    _mended("a share as text", "split.held_out_test", "split: {held_out_test: '0.5'}"),
    _mended("a negative random state", "split.random_state", "split: {held_out_test: 0.5, random_state: -1}"),
    _mended("a random state of 1.5", "split.random_state", "split: {held_out_test: 0.5, random_state: 1.5}"),
    _mended("digests as a list", "files", "files: [iris.csv]"),
    _mended("a digest without sha256", "files[iris.csv].sha256", "files: {iris.csv: {bytes: 1}}"),
    _mended("a short sha256", "files[iris.csv].sha256", "files: {iris.csv: {bytes: 1, sha256: abc}}"),
    _mended("a negative size", "files[iris.csv].bytes", "files: {iris.csv: {bytes: -1, sha256: abc}}"),
    _mended("a digest of what is not named", "files[other.csv]", f"files: {{other.csv: {digest(b'')}}}"),
    _mended("a digest of a file elsewhere", "files[../iris.csv]", f"files: {{../iris.csv: {digest(b'')}}}"),
)

_FOLD_BUNDLES = (
    _folds("no folds", "folds", folds=None),
    _folds("an empty list of folds", "folds", folds="[]"),
    _folds("folds as a mapping", "folds", folds=_FOLD),
    _folds("a fold that is a number", "folds[0]", folds="[11]"),
    _folds("folds and cv", "cv", more="cv: {class: ShuffleSplit, n_splits: 3}"),
    _folds("cv without a class", "cv", folds=None, more="cv: {n_splits: 3}"),
    _folds("cv that is a text", "cv", folds=None, more="cv: ShuffleSplit"),
    _folds("cv with a nested parameter", "cv", folds=None, more="cv: {class: KFold, n_splits: {a: 1}}"),
    _folds("cv with a dotted class", "cv", folds=None, more="cv: {class: os.system, n_splits: 3}"),
    Malformed("no submission", FOLDS, {"manifest.yaml": f"folds: [{_FOLD}]\n".encode()}, "submission"),
    _folds("a submission that is a number", "submission", submission="24"),
    _folds("a submission without an id", "submission.id", submission="{dataset: iris, files: [x.py]}"),
    _folds("a submission id with a slash", "submission.id", submission="{id: a/b}"),
    _folds("a negative submission id", "submission.id", submission="{id: -3}"),
    _folds("a submission id with a fraction", "submission.id", submission="{id: 1.5}"),
    _folds("files without a dataset", "submission.dataset", submission="{id: 24, files: [classifier.py]}"),
    _folds("a dataset without files", "submission.files", submission="{id: 24, dataset: iris}"),
    _folds("no files in the list", "submission.files", submission="{id: 24, dataset: iris, files: []}"),
    _folds("files as text", "submission.files", submission="{id: 24, dataset: iris, files: classifier.py}"),
    _folds("a file twice", "submission.files[1]",
           submission="{id: 24, dataset: iris, files: [classifier.py, classifier.py]}"),
    _folds("a file elsewhere", "submission.files[1]",
           submission="{id: 24, dataset: iris, files: [classifier.py, ../x.py]}"),
    _folds("a package marker", "submission.files[1]",
           submission="{id: 24, dataset: iris, files: [classifier.py, __init__.py]}"),
    _folds("no Python file", "submission.files", submission="{id: 24, dataset: iris, files: [x.csv]}"),
    _folds("state set by the client", "folds[0].state",
           folds="[{id: 11, train_is: [0], test_is: [1], state: TESTED}]"),
    _folds("a fold without an id", "folds[0].id", folds="[{train_is: [0], test_is: [1]}]"),
    _folds("a fold without training rows", "folds[0].train_is", folds="[{id: 11, test_is: [1]}]"),
    _folds("a fold without validation rows", "folds[0].test_is", folds="[{id: 11, train_is: [1]}]"),
    _folds("a fold id twice", "folds[1].id", folds=f"[{_FOLD}, {_FOLD}]"),
    _folds("a fold id twice, once as text", "folds[1].id",
           folds=f"[{_FOLD}, {{id: '11', train_is: [5], test_is: [6]}}]"),
    _folds("a fold id that leads up", "folds[0].id", folds="[{id: .., train_is: [0], test_is: [1]}]"),
    _folds("an unknown priority", "priority", more="priority: urgent"),
    _folds("a priority that is a number", "priority", more="priority: 1"),
    _folds("a fold's unknown priority", "folds[0].priority",
           folds="[{id: 11, train_is: [0], test_is: [1], priority: M}]"),
    _folds("an unknown force", "force", more="force: everything"),
    _folds("a force that is true", "force", more="force: true"),
    _folds("replacing a submission without files", "force", submission="{id: 24}", more="force: submission"),
    _rows("a negative row", "train_is", "[0, -1]"),
    _rows("a row twice", "train_is", "[0, 1, 1]"),
    _rows("a row in both lists", "test_is", "[0, 1, 2]", "[2, 3]"),
    _rows("no training row", "train_is", "[]"),
    _rows("no validation row", "test_is", "[0]", "[]"),
    _rows("a row with a fraction", "train_is", "[0, 1.5]"),
    _rows("a row that is true", "train_is", "[0, true]"),
    _rows("a row as text", "train_is", "[0, '1']"),
    _rows("rows in rows", "train_is", "[[0, 1], [2]]"),
    _rows("rows that are a number", "train_is", "5"),
    _rows("a row beyond 64 bits", "train_is[1]", f"[0, {2**70}]"),
    _rows("a row beyond any dataset", "train_is", f"[0, {2**40}]"),
    _rows("rows that are no base64", "train_is", "'fold 11'"),
    _rows("rows in a text file", "train_is", "rows.txt"),
    _rows("base64 that is not zlib", "train_is", base64.b64encode(b"no zlib data").decode()),
    _rows("base64 of half a row", "train_is", base64.b64encode(zlib.compress(b"12345")).decode()),
    _rows("base64 that is cut short", "train_is", base64.b64encode(zlib.compress(bytes(8))[:-3]).decode()),
    _rows("base64 of a bomb", "train_is", base64.b64encode(zlib.compress(bytes(50_000_000))).decode()),
    _rows("base64 with a row in both lists", "test_is", rest_base64([0, 1, 2]), rest_base64([2, 3])),
    _rows("an index file elsewhere", "train_is", "../rows.npy"),
)  # fmt: skip

_INDEX_FILES = (
    _index_file("npy of floats", "rows.npy", npy([0, 1], kind="<d", descr="<f8")),
    _index_file("npy of a mask", "rows.npy", npy([1, 0, 1], kind="<b", descr="|b1")),
    _index_file("npy of objects", "rows.npy", npy([0, 1], descr="|O")),
    _index_file("npy with two dimensions", "rows.npy", npy(range(4), shape="(2, 2)")),
    _index_file("npy with no dimension", "rows.npy", npy([5], shape="()")),
    _index_file("npy that is cut short", "rows.npy", npy(range(20))[:-5]),
    _index_file("npy followed by more", "rows.npy", npy(range(20)) + b"more"),
    _index_file("npy that announces too much", "rows.npy", npy([0, 1], shape=f"({10**15},)")),
    _index_file("npy with a header of code", "rows.npy", npy([0], shape="__import__('os').getpid()")),
    _index_file("npy with a deep header", "rows.npy", npy([0], shape="(" * 2000 + ")" * 2000)),
    _index_file("npy with half a header", "rows.npy", npy(range(3))[:30]),
    _index_file("npy that is empty", "rows.npy", b""),
    _index_file("npy that is a text", "rows.npy", b"0\n1\n2\n"),
    _index_file("npy with a negative row", "rows.npy", npy([0, -7])),
    _index_file("npy with a row twice", "rows.npy", npy([3, 4, 3])),
    _index_file("npy beyond signed integers", "rows.npy", npy([2**64 - 1], kind="<Q", descr="<u8")),
    _index_file("csv of text", "rows.csv", b"row\nfirst\nsecond\n"),
    _index_file("csv of floats", "rows.csv", b"0.0\n1.0\n"),
    _index_file("csv with two columns", "rows.csv", b"n,row\n0,5\n1,6\n"),
    _index_file("csv with a gap", "rows.csv", b"0\n\n2\n"),
    _index_file("csv without rows", "rows.csv", b"row\n"),
    _index_file("csv in UTF-16", "rows.csv", "0\n1\n".encode("utf-16")),
    _index_file("json with nested lists", "rows.json", b"[[0, 1], [2, 3]]"),
    _index_file("json that is a mapping", "rows.json", b'{"train_is": [0, 1]}'),
    _index_file("json with floats", "rows.json", b"[0, 1.0]"),
    _index_file("json with true", "rows.json", b"[0, true]"),
    _index_file("json with NaN", "rows.json", b"[0, NaN]"),
    _index_file("json that is cut short", "rows.json", b"[0, 1, 2"),
    _index_file("json that is deep", "rows.json", b"[" * 50_000),
    _index_file("json with a long number", "rows.json", b"[" + b"9" * 10_000 + b"]"),
    _index_file("an index file that overlaps", "rows.json", b"[0, 1, 70]", expected_field="folds[0].test_is"),
    _index_file(
        "npy out of range for iris", "rows.npy", npy([0, IRIS_TRAIN_ROWS]),
        expected_field="folds[0].train_is[1]", seen_by=SeenBy.RANGE,
    ),
    _index_file(
        "a validation row out of range for iris", "rows.json", b"[0, 1]", test="[150]",
        expected_field="folds[0].test_is[0]", seen_by=SeenBy.RANGE,
    ),
)  # fmt: skip

_MISSING = (
    Malformed(
        "a missing data file", DATASETS, {"manifest.yaml": _DATASET.encode()}, "iris.csv", SeenBy.INTAKE
    ),
    Malformed(
        "a missing submission file", FOLDS, {"manifest.yaml": _folds_manifest().encode()},
        "classifier.py", SeenBy.INTAKE,
    ),
    _index_file("a missing index file", "rows.npy", None, expected_field="rows.npy", seen_by=SeenBy.INTAKE),
    Malformed(
        "a data file that is shorter than its digest says", DATASETS,
        {
            "manifest.yaml": f"{_DATASET}files: {{iris.csv: {digest(IRIS_CSV)}}}\n".encode(),
            "iris.csv": IRIS_CSV[:-100],
        },
        "iris.csv", SeenBy.INTAKE,
    ),
    Malformed(
        "a data file of the right size with other bytes", DATASETS,
        {
            "manifest.yaml": f"{_DATASET}files: {{iris.csv: {digest(IRIS_CSV)}}}\n".encode(),
            "iris.csv": IRIS_CSV[:-2] + b"x\n",
        },
        "iris.csv", SeenBy.INTAKE,
    ),
)  # fmt: skip

MALFORMED: tuple[Malformed, ...] = (
    *_YAML, *_DATASETS, *_FOLD_BUNDLES, *_INDEX_FILES, *_MISSING,
    *MALFORMED_CUSTOM, *MALFORMED_REQUESTS,
)  # fmt: skip


def _good_folds(name: str, manifest: str, **files: bytes) -> Good:
    return Good(name, FOLDS, {"manifest.yaml": manifest.encode(), "classifier.py": CLASSIFIER} | files)


_EACH_KIND = """\
submission: {id: 30, dataset: iris, files: [classifier.py]}
folds:
  - {id: 101, train_is: little.npy, test_is: [60, 61], priority: high}
  - {id: 102, train_is: big.npy, test_is: short.npy, priority: l}
  - {id: 103, train_is: column.csv, test_is: line.csv}
  - {id: 104, train_is: list.json, test_is: BASE64}
priority: H
force: submission_fold
"""

GOOD: tuple[Good, ...] = (
    Good("iris", DATASETS, {"manifest.yaml": _DATASET.encode(), "iris.csv": IRIS_CSV}),
    Good("iris with digests, workflow as text", DATASETS, {
        "manifest.yaml": f"{_DATASET}files: {{iris.csv: {digest(IRIS_CSV)}}}\n"
        .replace("[classifier]", "'feature_extractor, classifier, calibrator'")
        .replace("name: iris", "name: iris-2.1").encode(),
        "iris.csv": IRIS_CSV,
    }),
    Good("a dataset in JSON, with a byte order mark", DATASETS, {
        "manifest.yaml": b"\xef\xbb\xbf" + json.dumps({
            "name": 2024, "target_column": "\u00e9t\u00e9", "workflow_elements": ["regressor"],
            "data_file": "donn\u00e9es 1.csv", "extra_files": [], "split": None,
        }, ensure_ascii=False).encode(),
        "donn\u00e9es 1.csv": IRIS_CSV,
    }),
    _good_folds("one fold", _folds_manifest()),
    _good_folds("only the id of a submission", _folds_manifest(submission="{id: 24}")),
    _good_folds("folds by a splitter",
                _folds_manifest(folds=None, more="cv: {class: ShuffleSplit, n_splits: 8, test_size: 0.2}")),
    _good_folds("both forces", _folds_manifest(more="force: 'submission, submission_fold'\npriority: Low")),
    _good_folds("each kind of rows", _EACH_KIND.replace("BASE64", rest_base64([40, 41])), **{
        "little.npy": npy([0, 1, 2]),
        "big.npy": npy([3, 4], kind=">q", descr=">i8"),
        "short.npy": npy([70, 71], kind="<B", descr="|u1"),
        "column.csv": b"row\r\n5\r\n6\r\n",
        "line.csv": b"7, 8",
        "list.json": b"[9, 10, 11]",
    }),
    _good_folds("folds for somebody else", _folds_manifest(more="user: 1003")),
    *GOOD_CUSTOM,
    *GOOD_REQUESTS,
)  # fmt: skip
