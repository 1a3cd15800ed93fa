"""RAMP kits: submissions predict, bit for bit, what ``ramp-test`` says they do."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import textwrap
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datarun_daemon.runner.labels import LabelRows
from datarun_daemon.runner.pool import Pool
from datarun_daemon.runner.protocol import (
    FoldsGenerated,
    FoldsNotGenerated,
    GenerateFoldsTask,
    Prepared,
    PrepareFailed,
    PrepareTask,
)
from tests.kits import write_kit

from .conftest import Data, House
from .kits import CASES, OWN, Case, assert_same, folds_of, kit_of, ramp_test


def prepare(house: House, kit: Path, **more: Any) -> Data | PrepareFailed:
    """The kit as a dataset; its submissions are not part of it."""
    files = [path.relative_to(kit).as_posix() for path in sorted(kit.rglob("*")) if path.is_file()]
    files = [file for file in files if not file.startswith("submissions/")]
    folder = kit.parent / f"prepared-{kit.name}"
    task = PrepareTask(
        str(kit), None, "", (), None, None, folder,
        format="ramp", specific="problem.py", files=tuple(files), dataset_folder=kit, **more,
    )  # fmt: skip
    house.pool.prepare(task)
    report = house.wait_for(lambda report: isinstance(report, Prepared | PrepareFailed))
    if isinstance(report, PrepareFailed):
        return report
    assert isinstance(report, Prepared)
    assert sorted(report.files) == sorted(path for path in folder.rglob("*") if path.is_file())
    return Data(str(kit), kit, folder, "", (), report.n_train, report.n_test)


def prepared(house: House, kit: Path) -> Data:
    data = prepare(house, kit)
    assert isinstance(data, Data), data.reason
    return data


def kit(folder: Path, body: str, *, problem: str = OWN, **files: str) -> Path:
    """A kit over numbers; what data(first, last) and the workflow are is for the body to say."""
    text = problem + textwrap.dedent(body)
    return write_kit(folder / "kit", problem=text, data={}, submissions={"mine": {"any.py": "", **files}})


def run(house: House, folder: Path, body: str, *, train_is: tuple[int, ...] = (5, 3, 7), **more: Any) -> dict[str, Any]:
    """The end of a fold of such a kit's only submission."""
    made = kit(folder, body)
    return house.run(prepared(house, made), made / "submissions/mine", train_is=train_is, **more)


@pytest.mark.parametrize("name", CASES)
def test_a_submission_predicts_what_ramp_test_says(house: House, tmp_path: Path, name: str):
    made = kit_of(CASES[name], tmp_path / "kit")
    expected = ramp_test(made, tmp_path)
    data = prepared(house, made)

    for (train_is, test_is), (full_train, test) in zip(folds_of(made), expected, strict=True):
        result = house.run(data, made / "submissions/mine", train_is=train_is, test_is=test_is)

        assert ("TESTED", None) == (result["state"], result["stage"]), result["log_messages"]
        assert test is not None
        assert_same(full_train, result["out"], "full_train_predictions")
        assert_same(test, result["out"], "test_predictions")


def test_a_kit_without_a_test_set_ends_after_validation(house: House, tmp_path: Path):
    case = CASES["a pipeline over a table"]
    problem = case.problem.replace('return _read(path, "test.csv")', "return None, None")
    made = kit_of(Case(problem, case.files), tmp_path / "kit")
    expected = ramp_test(made, tmp_path)
    data = prepared(house, made)
    ((train_is, test_is), _) = folds_of(made)

    result = house.run(data, made / "submissions/mine", train_is=train_is, test_is=test_is)

    assert (40, 0) == (data.n_train, data.n_test)
    assert ["X_train.buffers", "X_train.pickle"] == sorted(path.name for path in data.folder.glob("X_*"))
    assert ("VALIDATED_ONLY", None, "the kit has no test set", "") == tuple(
        result[key] for key in ("state", "stage", "message", "log_messages")
    )
    assert_same(expected[0][0], result["out"], "full_train_predictions")
    assert_same(None, result["out"], "test_predictions")
    assert ["red", "white"] == result["classes"]
    assert result["train_seconds"] > 0
    assert result["validation_seconds"] > 0
    assert result["test_seconds"] is None
    assert sorted(result["files"]) == sorted(path.name for path in result["out"].iterdir() if path.stem != "result")


@pytest.mark.parametrize("returned", ["None", "(None, [1])", "[None, None]"])
def test_a_test_set_of_nothing_is_none(house: House, tmp_path: Path, returned: str):
    body = f"""
        def data(first, last): return numbers(first, last), np.arange(first, last)
        def get_test_data(path="."): return {returned}
        class workflow:
            def train_submission(module_path, X, y, train_is): pass
            def test_submission(trained, X): return np.zeros(30)
    """

    assert "VALIDATED_ONLY" == run(house, tmp_path, body)["state"]


def test_a_test_set_whose_labels_are_secret_is_predicted(house: House, tmp_path: Path):
    body = """
        def data(first, last): return numbers(first, last), None if first else np.arange(first, last)
        class workflow:
            def train_submission(module_path, X, y, train_is): pass
            def test_submission(trained, X): return np.zeros(len(X))
    """

    result = run(house, tmp_path, body)

    assert "TESTED" == result["state"], result["log_messages"]
    assert (12,) == np.load(result["out"] / "test_predictions.npy").shape


def test_an_error_at_validation_is_one_in_a_kit_without_a_test_set_too(house: House, tmp_path: Path):
    body = """
        def data(first, last): return numbers(first, last), np.arange(first, last)
        def get_test_data(path="."): pass
        class workflow:
            def train_submission(module_path, X, y, train_is): pass
            def test_submission(trained, X): return np.zeros(29)
    """

    result = run(house, tmp_path, body)

    assert ("ERROR", "validation") == (result["state"], result["stage"])
    assert "Wrong full train prediction size: 29 instead of 30" == result["message"]


@pytest.mark.parametrize(
    ("labels", "own", "others"),
    [
        ("np.array([f'secret{i:02}' for i in range(first, last)])", "'secret05', 'secret03'", ["secret05"]),
        ("np.arange(first, last) + 0.25", "5.25, 3.25", ["nan"]),
        ("np.column_stack([np.arange(first, last) + 100] * 2)", "[105, 105], [103, 103]", ["[105, 105]"]),
        ("list(range(100 + first, 100 + last))", "105, 103", ["105"]),
        ("[[i] * (i % 3) for i in range(first, last)]", "[5, 5], []", ["None"]),
        ("[[i, i] for i in range(first, last)]", "[5, 5], [3, 3]", ["None"]),
        ("[i if i % 2 else str(i) for i in range(first, last)]", "5, 3", ["None"]),
        ("np.zeros((last - first, 2, 3)) + 0.5", "[[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]], [[0.5", ["[[nan, nan, nan], [n"]),
        ("np.arange(first, last).astype('datetime64[D]')", "datetime.date(1970, 1, 6), datetime.", ["1970-01-06"]),
        ("pd.Series([{'a': i} for i in range(first, last)], name='t')", "{'a': 5}, {'a': 3}", ["None"]),
        ("pd.DataFrame({'a': range(first, last), 'b': 'x'})", "[5, 'x'], [3, 'x']", ["[None, "]),
        ("pd.Series(pd.date_range('2020-01-01', periods=last - first))", "Timestamp('2020-01-06 ", ["2020-01-06"]),
    ],
)  # fmt: skip
def test_the_workflow_is_given_no_label_outside_its_fold(
    house: House, tmp_path: Path, labels: str, own: str, others: list[str]
):
    body = f"""
        def data(first, last): return numbers(first, last), {labels}
        class workflow:
            def train_submission(module_path, X, y, train_is):
                rows = list(y.to_numpy() if hasattr(y, "columns") else y)
                print(type(y).__name__, getattr(y, "dtype", ""), getattr(y, "shape", ""), len(y))
                print([(rows[row].tolist() if hasattr(rows[row], "tolist") else rows[row]) for row in train_is])
                shown = (row.tolist() if getattr(row, "ndim", 0) else row for row in rows)
                print(sorted({{str(each) for row, each in enumerate(shown) if row not in train_is}}))
            def test_submission(trained, X): return np.zeros(len(X))
    """
    program = (
        f"import numpy as np, pandas as pd; first, last = 0, 30; y = {labels}\n"
        "print(type(y).__name__, getattr(y, 'dtype', ''), getattr(y, 'shape', ''), len(y))"
    )
    plain = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    result = run(house, tmp_path, body)

    assert "TESTED" == result["state"], result["log_messages"]
    kind, given, masked = (result["out"] / "log.txt").read_text().splitlines()
    assert plain.stdout.strip() == kind
    assert given.startswith(f"[{own}"), given
    assert len(others) == len(ast.literal_eval(masked))
    assert ast.literal_eval(masked)[0].startswith(others[0]), masked


def test_the_file_of_a_folds_labels_holds_its_rows_only(house: House, tmp_path: Path):
    body = """
        workflow = rw.workflows.Classifier()
        def data(first, last): return numbers(first, last), [[f"secret{i:02}"] * (i % 3) for i in range(first, last)]
    """
    data = prepared(house, kit(tmp_path, body))

    descriptor = LabelRows(data.folder).file_for(array("q", [5, 2, 2]), array("q", [1]))

    with os.fdopen(descriptor, "rb") as file:
        content = file.read()
    assert [5, 2, 2, 1] == np.frombuffer(content, "<i8", 4).tolist()
    assert ["secret02", "secret05"] == [f"secret{row:02}" for row in range(42) if f"secret{row:02}".encode() in content]
    for beyond in ([30], [-1]):
        with pytest.raises(IndexError):
            LabelRows(data.folder).file_for(array("q", beyond), array("q"))


def test_folds_are_given_the_code_of_the_kit_and_none_of_its_data(house: House, tmp_path: Path):
    more = {
        "beside.py": "", "README.md": "", "external_imports/a/b.py": "", "external_imports/a/c.txt": "",
        "data/code.py": "", "other/d.py": "",
    }  # fmt: skip

    data = prepared(house, write_kit(tmp_path / "kit", more=more))

    code = data.folder / "code"
    assert ["beside.py", "external_imports/a/b.py", "external_imports/a/c.txt", "problem.py"] == sorted(
        path.relative_to(code).as_posix() for path in code.rglob("*") if path.is_file()
    )
    assert ["X_test.buffers", "X_test.pickle", "X_train.buffers", "X_train.pickle", "code", "labels", "meta.json"] == (
        sorted(path.name for path in data.folder.iterdir())
    )


def test_only_the_worker_that_splits_and_folds_run_code_of_the_kit(house: House, tmp_path: Path):
    body = f"""
        def note():
            with open({str(tmp_path / "ran")!r}, "a") as file:
                print(open("/proc/self/comm").read().strip(), file=file)
        note()
        class Box:
            def __setstate__(self, state): note()
            def __getstate__(self): return {{"any": "thing"}}
        def data(first, last): return [Box() for _ in range(first, last)], [Box() for _ in range(first, last)]
        class workflow:
            def train_submission(module_path, X, y, train_is):
                assert isinstance(y[5], Box) and y[4] is None
            def test_submission(trained, X): return np.zeros(len(X))
    """

    result = run(house, tmp_path, body)

    assert "TESTED" == result["state"], result["log_messages"]
    ran = (tmp_path / "ran").read_text().splitlines()
    assert {"datarun-prepare": 1, "datarun-fold": 1 + 30 + 12 + 3} == {name: ran.count(name) for name in ran}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("def (", "the import of problem.py failed: SyntaxError: "),
        ("import nowhere", "the import of problem.py failed: ModuleNotFoundError: No module named 'nowhere'"),
        (
            "del problem_title, get_train_data",
            "problem.py defines no problem_title and no workflow and no get_train_data; problem_title, workflow, "
            "get_train_data, workflow.train_submission, workflow.test_submission are expected",
        ),
        ("workflow = 3", "problem.py defines no workflow.train_submission and no workflow.test_submission; "),
        ("def data(first, last): return 1 / 0", "get_train_data of problem.py failed: ZeroDivisionError: "),
        ("def data(first, last): return 1, 2, 3", "get_train_data of problem.py returned tuple of 3; a pair is "),
        ("def data(first, last): return [1], None", "counting the rows of y of get_train_data of problem.py failed: "),
        ("def data(first, last): return [1], []", "get_train_data of problem.py returned no labels; at least one is "),
        (
            "def data(first, last): return [1], [] if first else [1]",
            "get_test_data of problem.py returned no rows; a kit without a test set returns None",
        ),
        ("def data(first, last): return [1], [lambda: 0]", "pickling y of get_train_data of problem.py failed: "),
        ("def data(first, last): return lambda: 0, [1]", "pickling X of get_train_data of problem.py failed: "),
    ],
)
def test_a_kit_that_can_not_be_split_is_refused_in_words(house: House, tmp_path: Path, body: str, reason: str):
    workflow = "" if "workflow" in body or "del" in body else "workflow = rw.workflows.Estimator()\n"

    refused = prepare(house, kit(tmp_path, workflow + body))

    assert isinstance(refused, PrepareFailed)
    assert refused.reason.startswith(reason), refused.reason
    assert not refused.transient


def test_an_interpreter_without_ramp_workflow_is_named(tmp_path: Path):
    python = interpreter_without("ramp", tmp_path / "bare")
    house = House(tmp_path)
    house.pool.close()
    house.pool = Pool(environments={"default": str(python)})

    try:
        refused = prepare(house, write_kit(tmp_path / "kit"))
    finally:
        house.pool.close()

    assert isinstance(refused, PrepareFailed)
    expected = f"this dataset is a RAMP kit, and the interpreter {python} has no ramp-workflow; pip install "
    assert refused.reason.startswith(f"{expected}'datarun-daemon[ramp]'\n"), refused.reason


def interpreter_without(package: str, folder: Path) -> Path:
    """A virtual environment with all packages that this one has, but for those."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (there,) = folder.glob("lib/python*/site-packages")
    here = Path(np.__file__).parents[1]
    for entry in here.iterdir():
        if not entry.name.startswith(package):
            (there / entry.name).symlink_to(entry)
    return folder / "bin/python"


@pytest.mark.parametrize(
    ("predictions", "stored"),
    [
        ("[[(1, 2.5)] * (i % 3) for i in range(len(X))]", [[], [[1, 2.5]], [[1, 2.5], [1, 2.5]]]),
        ("[[[1, 2, 3]] for i in X]", [[[1, 2, 3]]] * 3),
        ("[np.float32([0.5, i]) for i in range(len(X))] + [] if 0 else [[i, {'a': None}] for i in range(len(X))]",
         [[0, {"a": None}], [1, {"a": None}], [2, {"a": None}]]),
        ("['é', np.bool_(1), np.int8(3)] * (len(X) // 3)", ["é", True, 3]),
        ("[np.float32(0.5), [np.arange(2)], np.longdouble(2)] * (len(X) // 3)", [0.5, [[0, 1]], 2.0]),
        ("np.zeros((len(X), 2, 1), int)", [[[0], [0]]] * 3),
        ("pd.DataFrame({'a': range(len(X)), 'b': 'x'})", [[0, "x"], [1, "x"], [2, "x"]]),
        ("[[]] * len(X)", [[], [], []]),
    ],
)  # fmt: skip
def test_predictions_that_are_no_array_of_numbers_become_json(
    house: House, tmp_path: Path, predictions: str, stored: list[Any]
):
    body = f"""
        def data(first, last): return numbers(first, last), np.arange(first, last)
        class workflow:
            def train_submission(module_path, X, y, train_is): pass
            def test_submission(trained, X): return {predictions}
    """

    result = run(house, tmp_path, body)

    assert "TESTED" == result["state"], result["log_messages"]
    assert ["full_train_predictions.json", "log.txt", "test_predictions.json"] == sorted(result["files"])
    assert result["classes"] is None
    for name, rows in (("full_train_predictions", 30), ("test_predictions", 12)):
        found = json.loads((result["out"] / f"{name}.json").read_text())
        assert (stored, rows) == (found[:3], len(found))


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ("[[1], []]", "Wrong full train prediction size: 2 instead of 30"),
        ("'x' * 30", "Wrong full train predictions: str instead of an array or list with an item a row"),
        ("[{1, 2}] * 30", "Wrong full train predictions: set in item 0; numbers, or lists of numbers and text, are "),
        ("[[1]] * 29 + [[1j]]", "Wrong full train predictions: complex in item 29; "),
        ("[[1], [float('nan'), 2]] * 15", "Wrong full train predictions: nan, which is no number in JSON in item 1; "),
        ("[{1: 2}] * 30", "Wrong full train predictions: dict in item 0; "),
        ("[[np.datetime64(0, 's')]] * 30", "Wrong full train predictions: datetime64 of dtype datetime64[s] in item 0"),
        ("[deep] * 30", "Wrong full train predictions: lists that are nested too deep in item 0"),
        ("[['x' * (17 << 20)]] + [[]] * 29", "Wrong full train predictions: item 0 has 17825796 bytes; at most "),
    ],
)  # fmt: skip
def test_predictions_that_json_can_not_hold_are_an_error_that_says_what_came(
    house: House, tmp_path: Path, predictions: str, message: str
):
    body = f"""
        deep = []
        deep.append(deep)
        def data(first, last): return numbers(first, last), np.arange(first, last)
        class workflow:
            def train_submission(module_path, X, y, train_is): pass
            def test_submission(trained, X): return {predictions}
    """

    result = run(house, tmp_path, body)

    assert ("ERROR", "validation") == (result["state"], result["stage"])
    assert result["message"].startswith(message), result["message"]


@pytest.mark.parametrize(
    ("left", "message"),
    [
        (b"[]", "not a list with one item a line"),
        (b"[\n" + b"1,\n" * 28 + b"1\n]\n", "not 30 items, each in a line of at most 16777216 bytes"),
        (b"[\n" + b"1,\n" * 30 + b"1\n]\n", "item 29 is no JSON: "),
        (b"[\n" + b"1,\n" * 29 + b"1\n]\nx", "not 30 items, each in a line"),
        (b"[\n" + b"1,\n" * 29 + b"1\n", "not 30 items, each in a line"),
        (b"[\n" + b"1,\n" * 29 + b"NaN\n]\n", "item 29 is no JSON: NaN is no number in JSON"),
        (b"[\n" + b"1e999,\n" * 29 + b"1\n]\n", "Out of range float values are not JSON compliant"),
        (b"[\n" + b"1,\n" * 29 + b"[\n]\n", "item 29 is no JSON: "),
        (b"[\n" + b"[" * 50000 + b",\n" * 30 + b"1\n]\n", "item 0 is no JSON: "),
        (b"[\n" + b"9" * 5000 + b",\n" * 30 + b"1\n]\n", "item 0 is no JSON: "),
        (b"[\n" + b" " * (60 << 20), "62914562 bytes in a regular file of at most 52428800"),
    ],
)  # fmt: skip
def test_a_list_that_a_fold_forged_is_an_error(house: House, tmp_path: Path, left: bytes, message: str):
    (tmp_path / "left").write_bytes(left)
    body = f"""
        import sys
        def forged(items): return [open({str(tmp_path / "left")!r}, "rb").read()]
        def data(first, last): return numbers(first, last), np.arange(first, last)
        class workflow:
            def train_submission(module_path, X, y, train_is):
                (ours,) = [module for name, module in sys.modules.items() if name.endswith(".json_items")]
                ours.lines = forged
            def test_submission(trained, X): return [[]] * len(X)
    """

    result = run(house, tmp_path, body)

    assert ("ERROR", "validation") == (result["state"], result["stage"])
    assert result["message"].startswith("Wrong full train predictions: ")
    assert message in result["message"]
    assert ["log.txt", "result.json"] == sorted(path.name for path in result["out"].iterdir())


def test_columns_have_the_names_that_the_kit_gives_them(house: House, tmp_path: Path):
    shown = {}
    for name in ("a classifier", "a feature extractor and a regressor", "two targets"):
        made = kit_of(CASES[name], tmp_path / name.replace(" ", "_"))
        result = house.run(prepared(house, made), made / "submissions/mine")
        header = (result["out"] / "test_predictions.csv").read_text().splitlines()[0]
        assert ",".join(["row", *result["classes"]]) == header
        shown[name] = result["classes"]

    assert [["one", "other", "third"], ["y"], ["height", "weight"]] == list(shown.values())


def test_columns_without_names_are_counted(house: House, tmp_path: Path):
    body = """
        def data(first, last): return numbers(first, last), np.arange(first, last)
        class workflow:
            def train_submission(module_path, X, y, train_is): pass
            def test_submission(trained, X): return X[:, :2]
    """

    assert ["y_0", "y_1"] == run(house, tmp_path, body)["classes"]


def test_what_a_submission_raises_is_told_with_its_own_files_only(house: House, tmp_path: Path):
    files = {"estimator.py": "def get_estimator():\n    raise ValueError('no luck')\n"}
    made = write_kit(tmp_path / "kit", submissions={"mine": files})

    result = house.run(prepared(house, made), made / "submissions/mine")

    assert ("ERROR", "train", "ValueError: no luck") == (result["state"], result["stage"], result["message"])
    assert 'File "estimator.py", line 2, in get_estimator\n' in result["log_messages"]
    assert result["log_messages"].endswith(" - ERROR(train)\n")


def test_ramp_workflow_is_among_the_packages_of_a_result(house: House, tmp_path: Path):
    made = write_kit(tmp_path / "kit")

    result = house.run(prepared(house, made), made / "submissions/starting_kit")

    assert result["packages"]["ramp-workflow"].startswith("0.")


@pytest.mark.parametrize(
    ("labels", "splitter", "reason"),
    [
        ("[[i] * (i % 3) for i in range(first, last)]", "KFold", None),
        ("np.arange(first, last) % 2", "StratifiedKFold", None),
        ("[[i] * (i % 3) for i in range(first, last)]", "StratifiedKFold", "StratifiedKFold can't split 30 rows: "),
    ],
)
def test_splitters_make_folds_of_kits(house: House, tmp_path: Path, labels: str, splitter: str, reason: str | None):
    body = f"""
        workflow = rw.workflows.Estimator()
        def data(first, last): return numbers(first, last), {labels}
    """
    data = prepared(house, kit(tmp_path, body))
    file = tmp_path / "folds.npy"

    house.pool.prepare(GenerateFoldsTask("key", data.name, data.folder, splitter, {"n_splits": 3}, file))

    report = house.wait_for(lambda report: isinstance(report, FoldsGenerated | FoldsNotGenerated))
    if reason is None:
        assert isinstance(report, FoldsGenerated), report
        assert [(20, 10)] * 3 == [(fold.n_train, fold.n_test) for fold in report.folds]
    else:
        assert isinstance(report, FoldsNotGenerated)
        assert report.reason.startswith(reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("open('../labels/y_train.index', 'wb').write(bytes(40))", "y_train.pickles does not hold what y_train.index"),
        (
            "open('../labels/y_train.index', 'wb').write(np.array([0, 999, os.path.getsize("
            "'../labels/y_train.pickles')], '<u8').tobytes())",
            "y_train.pickles does not hold what y_train.index says",
        ),
        ("open('../labels/y_train.index', 'wb').write(bytes(5))", "y_train.index is no index of rows"),
        ("os.truncate('../labels/y_train.pickles', 3)", "y_train.pickles does not hold what y_train.index says"),
    ],
)
def test_labels_that_the_kit_changed_are_refused(house: House, tmp_path: Path, change: str, reason: str):
    body = f"""
        workflow = rw.workflows.Estimator()
        class Cell:
            def __reduce__(self):
                {change}
                return int, ()
        def data(first, last): return [Cell()], [[1], [2, 3]]
    """

    refused = prepare(house, kit(tmp_path, body))

    assert isinstance(refused, PrepareFailed)
    assert f"the stored labels were changed by the dataset's code: {reason}" in refused.reason


def test_an_endless_kit_is_ended(house: House, tmp_path: Path):
    body = """
        import time
        workflow = rw.workflows.Estimator()
        def data(first, last): time.sleep(1000)
    """

    refused = prepare(house, kit(tmp_path, body), wall_seconds=3.0)

    assert isinstance(refused, PrepareFailed)
    assert "get_train_data of problem.py did not end within 3 seconds, which is the limit" == refused.reason
