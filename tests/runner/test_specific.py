"""Datasets with code of their own: their functions split them, and give predictions that a plain script would."""

from __future__ import annotations

import ast
import importlib.util
import json
import shutil
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from datarun_daemon.runner import processes
from datarun_daemon.runner.protocol import (
    FoldsGenerated,
    FoldsNotGenerated,
    GenerateFoldsTask,
    PrepareFailed,
    PrepareTask,
)

from .conftest import DEADLINE_SECONDS, Data, House, alive, eventually, name_of

#: stars of two files: one line of numbers each, and lists of unequal length as text
STARS = """
    import ast
    import importlib
    import os
    import pandas as pd
    from sklearn.model_selection import train_test_split
    from reading import points_of

    target_column_name = "kind"

    class Star(dict):
        pass

    def prepare_data(path):
        stars = pd.read_csv(path + "/stars.csv", index_col=0)
        points = pd.read_csv(os.path.join(path, "points.csv"), index_col=0)
        for name, part in zip(("train", "test"), train_test_split(stars.join(points), test_size=0.3, random_state=57)):
            part.to_csv(os.path.join(path, name + ".csv"))
        print("split is done")

    def get_train_data(path):
        return _read(path + "/train.csv")

    def get_test_data(path):
        return _read(path + "/test.csv")

    def _read(file):
        frame = pd.read_csv(file, index_col=0)
        X = [Star(period=row.period, points=points_of(row.points)) for row in frame.itertuples()]
        return X, frame["kind"].values
"""
TRAINING = """
    def train_submission(module_path, X, y, train_is):
        extractor = importlib.import_module(".feature_extractor", module_path).FeatureExtractor()
        picked = [X[i] for i in train_is]
        extractor.fit(picked, y[train_is])
        classifier = importlib.import_module(".classifier", module_path).Classifier()
        classifier.fit(extractor.transform(picked), y[train_is])
        calibrator = importlib.import_module(".calibrator", module_path).Calibrator()
        calibrator.fit(classifier.predict_proba(extractor.transform(picked)), y[train_is])
        return extractor, classifier, calibrator

    def test_submission(trained, X, test_is):
        extractor, classifier, calibrator = trained
        picked = [X[i] for i in test_is]
        return calibrator.predict_proba(classifier.predict_proba(extractor.transform(picked)))
"""
READING = """
    import ast
    def points_of(text):
        return ast.literal_eval(text)
"""
EXTRACTOR = """
    import numpy as np
    class FeatureExtractor:
        def fit(self, X, y):
            self.longest = max(len(star["points"]) for star in X)
        def transform(self, X):
            rows = [[star["period"], np.mean(star["points"]), len(star["points"]) / self.longest] for star in X]
            return np.array(rows)
"""
CLASSIFIER = """
    from sklearn.ensemble import RandomForestClassifier
    class Classifier(RandomForestClassifier):
        def __init__(self):
            super().__init__(n_estimators=5, random_state=3)
"""
CALIBRATOR = """
    from sklearn.linear_model import LogisticRegression
    class Calibrator(LogisticRegression):
        pass
"""
STAR_ELEMENTS = ("feature_extractor", "classifier", "calibrator")

#: numbers; what X and y are is for the test to say
NUMBERS = """
    import numpy as np
    import pandas as pd
    def prepare_data(path): pass
    def get_train_data(path): return data(0, 40)
    def get_test_data(path): return data(40, 60)
    def numbers(first, last):
        rows = np.arange(first, last)
        return np.column_stack([rows % 7, rows * 0.5, np.sin(rows)]).astype(float)
    def frame(first, last):
        return pd.DataFrame(numbers(first, last), columns=["a", "b", "c"], index=[f"r{i}" for i in range(first, last)])
"""
GOOD_DATA = "def data(first, last): return numbers(first, last), np.arange(first, last)\n"
SHOWS = """
    class FeatureExtractor:
        def fit(self, X, y):
            print(type(X).__name__, type(y).__name__, getattr(y, "name", ""), list(getattr(y, "index", "")), list(y))
        def transform(self, X):
            return X[["a", "b"]].to_numpy() if hasattr(X, "columns") else X
"""
REGRESSOR = """
    from sklearn.ensemble import RandomForestRegressor
    class Regressor(RandomForestRegressor):
        def __init__(self):
            super().__init__(n_estimators=3, random_state=3)
"""


def star_files(*, training: bool) -> dict[str, str]:
    random = np.random.default_rng(5)
    kinds = [f"secret kind {number % 3}" for number in range(90)]
    # one label that only the test set has would be odd, so labels of rows tell nothing: rows are known by their period
    periods = [number % 3 + random.random() for number in range(90)]
    points = [random.random(random.integers(2, 9)).round(3).tolist() for _ in range(90)]
    stars = pd.DataFrame({"period": periods, "kind": kinds}, index=[f"s{number}" for number in range(90)])
    lists = pd.DataFrame({"points": [str(each) for each in points]}, index=stars.index)
    text = textwrap.dedent(STARS) + (textwrap.dedent(TRAINING) if training else "")
    return {"specific.py": text, "reading.py": READING, "stars.csv": stars.to_csv(), "points.csv": lists.to_csv()}


def own(*bodies: str) -> dict[str, str]:
    """A dataset of numbers; its ``data(first, last)`` is for the bodies to define."""
    return {"specific.py": "\n".join(map(textwrap.dedent, (NUMBERS, *bodies)))}


def prepared(house: House, files: dict[str, str], elements: tuple[str, ...], **more: Any) -> Data:
    data = house.prepare_own(files, elements, **more)
    assert isinstance(data, Data), data.reason
    return data


def plain(data: Data, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The dataset's own module, in this process, over a copy of its files that is split."""
    folder = data.csv.parent / f"plain-{data.name}"
    shutil.copytree(data.csv, folder)
    monkeypatch.syspath_prepend(str(folder))
    for name in ("reading", "specific", "submission"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    spec = importlib.util.spec_from_file_location("specific", folder / "specific.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "specific", module)
    spec.loader.exec_module(module)
    module.prepare_data(str(folder))
    module.path = str(folder)  # type: ignore[attr-defined]
    return module


def importable(submission: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The submission as a package of this process, under a name of its own."""
    name = f"plain_{submission.name.replace('-', '_')}"
    package = ModuleType(name)
    package.__path__ = [str(submission)]
    monkeypatch.setitem(sys.modules, name, package)
    return name


def assert_predicts(expected: tuple[Any, Any], result: dict[str, Any]) -> None:
    assert (result["state"], result["stage"]) == ("TESTED", None), result["log_messages"]
    for name, wanted in zip(("full_train_predictions", "test_predictions"), expected, strict=True):
        found = np.load(result["out"] / f"{name}.npy", allow_pickle=False)
        assert (wanted.dtype, wanted.shape) == (found.dtype, found.shape)
        assert np.ascontiguousarray(wanted).tobytes() == found.tobytes()


def log(result: dict[str, Any]) -> str:
    text: str = (result["out"] / "log.txt").read_text()
    return text


def test_a_dataset_that_trains_submissions_itself_predicts_what_a_plain_script_does(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    data = prepared(house, star_files(training=True), STAR_ELEMENTS)
    submission = house.submission(feature_extractor=EXTRACTOR, classifier=CLASSIFIER, calibrator=CALIBRATOR)
    script = plain(data, monkeypatch)
    (X, y), (X_test, _) = script.get_train_data(script.path), script.get_test_data(script.path)
    train_is = np.arange(0, 60, 2)
    trained = script.train_submission(importable(submission, monkeypatch), X, y, train_is)

    result = house.run(data, submission, train_is=train_is.tolist())

    assert (63, 27) == (data.n_train, data.n_test)
    expected = [script.test_submission(trained, part, range(len(part))) for part in (X, X_test)]
    assert_predicts((expected[0], expected[1]), result)
    assert ["secret kind 0", "secret kind 1", "secret kind 2"] == result["classes"]


def test_a_dataset_that_only_splits_itself_leaves_training_to_the_elements(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    data = prepared(house, star_files(training=False), ("feature_extractor", "classifier"))
    submission = house.submission(feature_extractor=EXTRACTOR, classifier=CLASSIFIER)
    script = plain(data, monkeypatch)
    (X, y), (X_test, _) = script.get_train_data(script.path), script.get_test_data(script.path)
    train_is = np.arange(5, 60)
    elements = importable(submission, monkeypatch)
    extractor = importlib.import_module(f"{elements}.feature_extractor").FeatureExtractor()
    classifier = importlib.import_module(f"{elements}.classifier").Classifier()
    picked = [X[row] for row in train_is]
    extractor.fit(picked, y[train_is])
    classifier.fit(extractor.transform(picked), y[train_is])

    result = house.run(data, submission, train_is=train_is.tolist())

    expected = [classifier.predict_proba(extractor.transform(part)) for part in (X, X_test)]
    assert_predicts((expected[0], expected[1]), result)


def test_modules_of_the_submission_are_importable_by_their_package_too(house: House):
    training = """
        def data(first, last): return numbers(first, last), np.arange(first, last)
        def train_submission(module_path, X, y, train_is):
            from submission import tools
            return tools.FACTOR
        def test_submission(trained, X, test_is):
            return X[test_is, 0] * trained
    """
    data = prepared(house, own(training), ("regressor",))

    result = house.run(data, house.submission(tools="FACTOR = 3.0", regressor=""))

    assert_predicts((np.arange(40) % 7 * 3.0, np.arange(40, 60) % 7 * 3.0), result)


@pytest.mark.parametrize(
    ("body", "elements", "shown"),
    [
        (
            "return (X := frame(first, last)), pd.Series(numbers(first, last)[:, 1], index=X.index, name='t')",
            ("feature_extractor", "regressor"),
            "DataFrame Series t ['r4', 'r2', 'r9'] [2.0, 1.0, 4.5]",
        ),
        (
            "return frame(first, last), numbers(first, last)[:, 1]",
            ("feature_extractor", "regressor"),
            "DataFrame ndarray  [] [2.0, 1.0, 4.5]",
        ),
        (
            "return numbers(first, last), pd.Series(numbers(first, last)[:, 1])",
            ("feature_extractor", "regressor"),
            "ndarray ndarray  [] [2.0, 1.0, 4.5]",
        ),
        (
            "return (X := frame(first, last)), X[['b', 'a']]",
            ("feature_extractor", "regressor"),
            "DataFrame DataFrame  ['r4', 'r2', 'r9'] ['b', 'a']",
        ),
        (
            "return numbers(first, last).tolist(), [float(i) for i in range(first, last)]",
            ("feature_extractor", "regressor"),
            "list ndarray  [] [4.0, 2.0, 9.0]",
        ),
    ],
)
def test_an_extractor_gets_x_and_y_as_the_dataset_made_them(
    house: House, body: str, elements: tuple[str, ...], shown: str
):
    data = prepared(house, own(f"def data(first, last): {body}"), elements)
    submission = house.submission(feature_extractor=SHOWS, regressor=REGRESSOR)

    result = house.run(data, submission, train_is=[4, 2, 9])

    assert "TESTED" == result["state"], result["log_messages"]
    said = log(result).replace("np.float64(", "").replace(")", "")
    assert shown + "\n" == said


@pytest.mark.parametrize(
    "body",
    [
        "return frame(first, last), pd.Series(numbers(first, last)[:, 1], index=frame(first, last).index)",
        "return numbers(first, last), numbers(first, last)[:, 1]",
        "return numbers(first, last), numbers(first, last)[:, 1:]",
        "return frame(first, last), frame(first, last)[['b', 'c']]",
    ],
)
def test_without_an_extractor_x_and_y_are_arrays(house: House, monkeypatch: pytest.MonkeyPatch, body: str):
    data = prepared(house, own(f"def data(first, last): {body}"), ("regressor",))
    submission = house.submission(
        regressor=REGRESSOR
        + """
        def fit(self, X, y):
            print(type(X).__name__, type(y).__name__, y.shape)
            return super().fit(X, y)
        """
    )
    script = plain(data, monkeypatch)
    (X, y), (X_test, _) = script.get_train_data(""), script.get_test_data("")
    regressor = importlib.import_module(f"{importable(submission, monkeypatch)}.regressor").Regressor()
    train_is = np.arange(1, 40, 3)
    regressor.fit(np.asarray(X)[train_is], np.asarray(y)[train_is])

    result = house.run(data, submission, train_is=train_is.tolist())

    assert_predicts((regressor.predict(np.asarray(X)), regressor.predict(np.asarray(X_test))), result)
    assert f"ndarray ndarray {np.asarray(y)[train_is].shape}\n" == log(result)


def test_a_sparse_matrix_is_a_dataset_too(house: House, monkeypatch: pytest.MonkeyPatch):
    body = """
        import scipy.sparse
        def data(first, last):
            return scipy.sparse.csr_matrix(numbers(first, last)), np.arange(first, last) % 2
    """
    data = prepared(house, own(body), ("classifier",))
    submission = house.submission(classifier=CLASSIFIER)
    script = plain(data, monkeypatch)
    (X, y), (X_test, _) = script.get_train_data(""), script.get_test_data("")
    classifier = importlib.import_module(f"{importable(submission, monkeypatch)}.classifier").Classifier()
    classifier.fit(X[np.arange(30)], y[np.arange(30)])

    result = house.run(data, submission, train_is=range(30))

    assert_predicts((classifier.predict_proba(X), classifier.predict_proba(X_test)), result)
    assert ["0", "1"] == result["classes"]


@pytest.mark.parametrize(
    ("labels", "container", "others"),
    [
        ("[f'secret{i:02}' for i in range(first, last)]", "ndarray", ["secret05"]),
        ("np.arange(first, last) + 0.25", "ndarray", ["nan"]),
        ("np.arange(first, last) + 100", "ndarray", ["105"]),
        ("pd.Series(np.arange(first, last) + 100, index=frame(first, last).index, name='t')", "Series", ["105"]),
    ],
)
def test_train_submission_is_given_no_label_outside_its_fold(
    house: House, labels: str, container: str, others: list[str]
):
    training = f"""
        def data(first, last): return frame(first, last), {labels}
        def train_submission(module_path, X, y, train_is):
            values = list(y)
            print(type(y).__name__, len(y), [str(values[row]) for row in train_is])
            print(sorted({{str(value) for row, value in enumerate(values) if row not in train_is}}))
            print(list(X.index) == list(getattr(y, "index", X.index)), train_is.dtype)
        def test_submission(trained, X, test_is):
            return np.zeros(len(test_is))
    """
    data = prepared(house, own(training), ("classifier",))
    expected = eval(f"list({labels})", {"np": np, "pd": pd, "frame": _frame, "first": 0, "last": 40})

    result = house.run(data, house.submission(classifier=""), train_is=[5, 3, 7])

    first, second, third = log(result).splitlines()
    assert f"{container} 40 {[str(expected[row]) for row in (5, 3, 7)]}" == first
    assert others == ast.literal_eval(second)
    assert "True int64" == third


def _frame(first: int, last: int) -> pd.DataFrame:
    return pd.DataFrame(index=[f"r{number}" for number in range(first, last)])


def test_columns_of_labels_are_no_classes(house: House):
    body = """
        def data(first, last): return numbers(first, last), pd.DataFrame({"one": np.arange(first, last) % 2, "two": 1})
        def train_submission(module_path, X, y, train_is): print(y.iloc[train_is].to_dict("list"))
        def test_submission(trained, X, test_is): return np.zeros((len(test_is), 2))
    """
    data = prepared(house, own(body), ("classifier",))

    result = house.run(data, house.submission(classifier=""), train_is=[5, 4])

    assert ("TESTED", ["class_0", "class_1"]) == (result["state"], result["classes"]), result["log_messages"]
    assert "{'one': [1, 0], 'two': [1, 1]}\n" == log(result)


def test_test_labels_are_nowhere_in_the_prepared_folder(house: House):
    body = """
        def prepare_data(path):
            with open(path + "/all.csv", "w") as file: print(*data(40, 60)[1], file=file)
            with open(path + "/../beside.csv", "w") as file: print(*data(40, 60)[1], file=file)
        def data(first, last): return frame(first, last), [f"se" + f"cret{i:02}" for i in range(first, last)]
    """
    data = prepared(house, own(body), ("classifier",))

    content = b"".join(path.read_bytes() for path in data.folder.rglob("*") if path.is_file())

    assert "secret00".encode("utf-32-le") in content
    kept = [f"secret{n}" for n in range(40, 60) if f"secret{n}".encode() in content]
    kept += [f"secret{n}" for n in range(40, 60) if f"secret{n}".encode("utf-32-le") in content]
    assert [] == kept


def test_folds_are_given_the_code_of_the_dataset_and_none_of_its_data(house: House):
    data = prepared(house, star_files(training=True), STAR_ELEMENTS)

    assert ["reading.py", "specific.py"] == sorted(path.name for path in (data.folder / "code").iterdir())
    assert ["X_test.buffers", "X_test.pickle", "X_train.buffers", "X_train.pickle", "code", "labels", "meta.json"] == (
        sorted(path.name for path in data.folder.iterdir())
    )


def test_the_dataset_as_it_was_dropped_is_left_as_it_is(house: House):
    files = star_files(training=False)
    data = prepared(house, files, STAR_ELEMENTS)

    assert sorted(files) == sorted(path.name for path in data.csv.iterdir())


def test_the_code_may_have_any_name(house: House):
    body = """
        class Own(list): pass
        def data(first, last): return Own(range(first, last)), np.arange(first, last)
    """
    data = prepared(house, {"my data.py": own(body)["specific.py"]}, ("regressor",), specific="my data.py")
    regressor = """
        class Regressor:
            def fit(self, X, y): print(X)
            def predict(self, X):
                print(type(X))
                return [float(x) for x in X]
    """

    result = house.run(data, house.submission(regressor=regressor), train_is=[2, 1])

    assert_predicts((np.arange(40.0), np.arange(40.0, 60.0)), result)
    assert "[2, 1]\n<class 'specific.Own'>\n<class 'specific.Own'>\n" == log(result)


def test_only_the_worker_and_folds_ever_import_the_code(house: House):
    note = house.folder / "importing.txt"
    body = f"""
        with open({str(note)!r}, "a") as file:
            print(open("/proc/self/comm").read().strip(), file=file)
        class Cell:
            def __setstate__(self, state):
                with open({str(note)!r}, "a") as file:
                    print(open("/proc/self/comm").read().strip(), file=file)
            def __getstate__(self): return 1
        def data(first, last): return [Cell() for _ in range(first, last)], np.arange(first, last)
        def train_submission(module_path, X, y, train_is): pass
        def test_submission(trained, X, test_is): return np.zeros(len(test_is))
    """
    data = prepared(house, own(body), ("regressor",))

    result = house.run(data, house.submission(regressor=""))

    assert "TESTED" == result["state"], result["log_messages"]
    assert {"datarun-prepare", "datarun-fold"} == set(note.read_text().splitlines())


def test_a_module_of_the_submission_is_not_taken_for_the_code_of_the_dataset(house: House):
    data = prepared(house, star_files(training=False), ("feature_extractor", "classifier"))
    impostor = "raise RuntimeError('not this one')"
    submission = house.submission(
        feature_extractor=EXTRACTOR, classifier=CLASSIFIER, specific=impostor, reading=impostor
    )

    assert "TESTED" == house.run(data, submission)["state"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("def train_submission(module_path, X, y, train_is): raise ValueError('bad luck')", "ValueError: bad luck"),
        ("import os\nif os.path.basename(os.getcwd()) != 'work': raise KeyError('bad luck')", "KeyError: 'bad luck'"),
    ],
)
def test_a_failure_of_the_dataset_s_code_in_a_fold_is_an_error_of_training(house: House, changed: str, message: str):
    training = "def train_submission(*given): pass\ndef test_submission(trained, X, test_is): return test_is * 1.0"
    data = prepared(house, own(training, changed, GOOD_DATA), ("regressor",))

    result = house.run(data, house.submission(regressor=""))

    assert ("ERROR", "train", message) == (result["state"], result["stage"], result["message"])
    assert 'File "specific.py", line ' in result["log_messages"]
    assert str(data.folder) not in result["log_messages"]
    assert result["log_messages"].endswith(" - ERROR(train)\n")


def test_predictions_of_test_submission_are_checked_like_any_others(house: House):
    body = """
        def data(first, last): return numbers(first, last), np.arange(first, last)
        def train_submission(module_path, X, y, train_is): pass
        def test_submission(trained, X, test_is): return np.zeros(min(len(test_is), 30))
    """
    data = prepared(house, own(body), ("regressor",))

    result = house.run(data, house.submission(regressor=""))

    assert ("ERROR", "validation") == (result["state"], result["stage"])
    assert "Wrong full train prediction size: \n30 instead of 40 \n - ERROR(validation)\n" == result["log_messages"]


@pytest.mark.parametrize(
    ("body", "reasons"),
    [
        ("def (", ["the import of specific.py failed: SyntaxError: ", 'File "specific.py", line ']),
        ("import nowhere", ["the import of specific.py failed: ModuleNotFoundError: No module named 'nowhere'"]),
        (
            GOOD_DATA + "del get_test_data",
            ["specific.py defines no get_test_data; prepare_data(path), get_train_data(path), get_test_data(path) are"],
        ),
        (
            GOOD_DATA + "def train_submission(module_path, X, y, train_is): pass",
            ["specific.py defines train_submission and no test_submission; both are expected, or neither"],
        ),
        (
            GOOD_DATA + "def prepare_data(path):\n    print('so far so good')\n    raise ValueError('no luck')",
            [
                "prepare_data of specific.py failed: ValueError: no luck\nTraceback (most recent call last):\n"
                '  File "specific.py", line ',
                "\nIt printed last:\nso far so good",
            ],
        ),
        ("def data(first, last): raise SystemExit(4)", ["get_train_data of specific.py failed: SystemExit: 4"]),
        ("def data(first, last): return f(first)\ndef f(x): return f(x)", ["RecursionError: maximum recursion depth"]),
        ("def data(first, last): raise ValueError('n' * 9000)", ["failed: ValueError: nnnn", "\n[…]nnnn"]),
        (
            "import traceback\ntraceback.format_exception = None\ndef data(first, last): raise KeyError",
            ["get_train_data of specific.py failed: KeyError (and TypeError on showing it)"],
        ),
        ("def data(first, last): raise ValueError('\\udc80\\x1b lone')", ["ValueError: \ufffd\ufffd lone"]),
        ("def data(first, last): pass", ["get_train_data of specific.py returned NoneType; a pair is expected: X, y"]),
        ("def data(first, last): return 1, 2, 3", ["get_train_data of specific.py returned tuple of 3; a pair"]),
        (
            "def data(first, last): return numbers(first, last), range(39)",
            ["get_train_data of specific.py returned X with 40 rows and y with 39; one label a row is expected"],
        ),
        (
            "def data(first, last): return numbers(first, last), np.arange(40)",
            ["get_test_data of specific.py returned X with 20 rows and y with 40; one label a row is expected"],
        ),
        ("def data(first, last): return [], []", ["get_train_data of specific.py returned no rows"]),
        (
            "def data(first, last): return (x for x in 'abc'), [1, 2, 3]",
            ["counting the rows of X of get_train_data of specific.py failed: TypeError: ", "has no len()"],
        ),
        (
            "def data(first, last): return [lambda: 0] * 40, np.arange(40)\ndef get_test_data(path): return [1], [1]",
            ["pickling X of get_train_data of specific.py failed: ", "lambda"],
        ),
        (
            "def data(first, last): return numbers(first, last), pd.date_range('2020-01-01', periods=last - first)",
            ["y of get_train_data of specific.py is an array of datetime64[", "numbers or text are expected"],
        ),
        (
            "def data(first, last): return numbers(first, last), [1, None] * ((last - first) // 2)",
            ["y of get_train_data of specific.py is of mixed kinds (NoneType, int); numbers or text are expected"],
        ),
        (
            "def data(first, last): return numbers(first, last), np.zeros((last - first, 2, 2))",
            ["y of get_train_data of specific.py has shape (40, 2, 2); one label a row is expected"],
        ),
        (
            "def data(first, last): return numbers(first, last), [[1], [1, 2]] * ((last - first) // 2)",
            ["making an array of y of get_train_data of specific.py failed: ValueError: "],
        ),
        (
            "import os\ndef prepare_data(path): os._exit(3)\n" + GOOD_DATA,
            ["prepare_data of specific.py ended its process with exit status 3"],
        ),
        (
            "import ctypes\ndef prepare_data(path): ctypes.string_at(1)\n" + GOOD_DATA,
            ["prepare_data of specific.py had its process ended by signal 11 (SIGSEGV)"],
        ),
        (
            "import shutil\nclass Cell:\n    def __reduce__(self):\n"
            "        shutil.rmtree('../labels', ignore_errors=True); return int, ()\n"
            "def data(first, last): return [Cell()] * (last - first), np.arange(first, last)",
            ["labels, which was stored, was removed or replaced by the dataset's code"],
        ),
    ],
)
def test_code_that_does_not_do_what_it_should_is_refused_with_the_reason(house: House, body: str, reasons: list[str]):
    refused = house.prepare_own(own(body), ("regressor",))

    assert isinstance(refused, PrepareFailed), refused
    assert [] == [reason for reason in reasons if reason not in refused.reason], refused.reason
    assert not refused.transient
    assert len(refused.reason) < 7100
    assert str(house.folder) not in refused.reason


def test_two_files_can_not_both_be_the_code(house: House):
    refused = house.prepare_own({"a.py": "", "specific.py": ""}, ("regressor",), specific="a.py")

    assert isinstance(refused, PrepareFailed)
    assert "a.py is imported as specific.py, and there is another file of that name" == refused.reason


def test_code_that_never_ends_is_ended_and_leaves_no_process(house: House):
    body = """
        import os, signal, subprocess, time
        def prepare_data(path):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            subprocess.Popen(["sleep", "1000"], start_new_session=True)
            if os.fork() == 0:
                os.setsid()
            print("on and on")
            while True: time.sleep(1)
    """

    refused = house.prepare_own(own(body, GOOD_DATA), ("regressor",), wall_seconds=1.5)

    assert isinstance(refused, PrepareFailed), refused
    assert not refused.transient
    assert "prepare_data of specific.py did not end within 1.5 seconds, which is the limit" in refused.reason
    assert "on and on" in refused.reason
    assert eventually(lambda: not _tasks(house))


def _tasks(house: House) -> list[str]:
    names = [name_of(pid) for server in house.pool.pids for pid in processes.descendants(server)]
    return [name for name in names if name not in ("datarun-keeper", "datarun-writer", "datarun-fold", "")]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("def prepare_data(path): np.ones(400 << 17)", "MemoryError: Unable to allocate"),
        (
            "import os, time\ndef prepare_data(path):\n"
            "    os.fork(); os.fork(); os.fork(); kept = np.ones(80 << 17); time.sleep(60)",
            "prepare_data of specific.py used more memory than the 209715200 bytes that are the limit",
        ),
    ],
)
def test_code_that_takes_too_much_memory_is_ended(house: House, body: str, reason: str):
    refused = house.prepare_own(own(body, GOOD_DATA), ("regressor",), memory_bytes=200 << 20)

    assert isinstance(refused, PrepareFailed), refused
    assert not refused.transient
    assert reason in refused.reason
    assert eventually(lambda: not _tasks(house))


def test_a_split_ends_when_nobody_waits_for_it_any_more(tmp_path: Path):
    house = House(tmp_path)
    note = tmp_path / "pid"
    body = f"""
        import os, time
        def prepare_data(path):
            with open({str(note)!r}, "w") as file: file.write(str(os.getpid()))
            time.sleep(1000)
    """
    (tmp_path / "specific.py").write_text(own(body)["specific.py"])
    task = PrepareTask(
        "own", None, "", ("regressor",), None, None, tmp_path / "prepared",
        specific="specific.py", dataset_folder=tmp_path,
    )  # fmt: skip
    house.pool.prepare(task)
    assert eventually(lambda: note.exists() and note.read_text() != "", seconds=DEADLINE_SECONDS)
    (server,) = house.pool.pids

    house.pool.close()

    assert eventually(lambda: not alive(int(note.read_text())) and not alive(server), seconds=DEADLINE_SECONDS)


def test_a_forged_answer_of_the_code_reaches_nobody(house: House):
    body = """
        import json, os, socket
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            try: link = socket.socket(fileno=os.dup(descriptor))
            except OSError: continue
            link.send(json.dumps({"op": "folds", "folds": [[1]]}).encode())
    """

    refused = house.prepare_own(own(body, GOOD_DATA), ("regressor",))

    assert isinstance(refused, PrepareFailed)
    assert "the import of specific.py said something that no task says" in refused.reason


def test_what_the_code_says_of_its_labels_is_not_believed(house: House):
    body = """
        class Cell:
            def __reduce__(self):
                with open("../meta.json", "w") as file: file.write('{"labels": {"offset": -1}}')
                with open("../labels/more", "w") as file: file.write("more")
                return int, ()
        def data(first, last): return [Cell()] * (last - first), np.arange(first, last) + 0.5
    """

    data = prepared(house, own(body), ("regressor",))

    meta = json.loads((data.folder / "meta.json").read_bytes())
    assert (40, 20, "custom", 8) == (meta["n_train"], meta["n_test"], meta["format"], meta["labels"]["row_bytes"])
    assert ["y_train.npy"] == [path.name for path in (data.folder / "labels").iterdir()]


def test_no_process_of_the_code_is_left_when_its_work_is_cleared_away(house: House):
    body = """
        import os
        def prepare_data(path):
            os.chmod(path, 0o500)
            if os.fork() == 0:
                os.setsid()
                while not os.stat(path).st_mode & 0o200: pass
                os.unlink(os.path.join(os.path.dirname(path), "X_test.pickle"))
    """

    data = prepared(house, own(body, GOOD_DATA), ("regressor",))

    assert (data.folder / "X_test.pickle").is_file()


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        ("np.zeros((1, 2, 3))", "holds no rows of labels"),
        ("np.zeros(0)", "holds no rows of labels"),
        ("np.array(3.0)", "holds no rows of labels"),
        ("np.array([{}], dtype=object)", "holds no rows of labels"),
        ("np.zeros((5, 2), order='F')", "holds no rows of labels"),
        ("b'no array'", "magic string is not correct"),
    ],
)
def test_labels_that_the_code_replaced_are_refused(house: House, stored: str, reason: str):
    body = f"""
        class Cell:
            def __reduce__(self):
                stored = {stored}
                with open("../labels/y_train.npy", "wb") as file:
                    if isinstance(stored, bytes): file.write(stored)
                    else: np.save(file, stored, allow_pickle=True)
                return int, ()
        def data(first, last): return [Cell()] * (last - first), np.arange(first, last) + 0.5
    """

    refused = house.prepare_own(own(body), ("regressor",))

    assert isinstance(refused, PrepareFailed)
    assert "the stored labels were changed by the dataset's code: " in refused.reason
    assert reason in refused.reason


def test_labels_that_the_code_cut_short_are_refused(house: House):
    body = """
        import os
        class Cell:
            def __reduce__(self):
                os.truncate("../labels/y_train.npy", 130)
                return int, ()
        def data(first, last): return [Cell()] * (last - first), np.arange(first, last) + 0.5
    """

    refused = house.prepare_own(own(body), ("regressor",))

    assert isinstance(refused, PrepareFailed)
    assert "y_train.npy does not hold what its header says" in refused.reason


def test_a_splitter_that_takes_too_long_is_ended(house: House, iris: Data):
    parameters = {"n_splits": 100_000, "random_state": 0}
    task = GenerateFoldsTask(
        "slow", iris.name, iris.folder, "ShuffleSplit", parameters, house.folder / "slow.npy", 100_000, wall_seconds=0.5
    )
    house.pool.prepare(task)

    report = house.wait_for(lambda report: isinstance(report, FoldsGenerated | FoldsNotGenerated))

    assert isinstance(report, FoldsNotGenerated)
    assert "ShuffleSplit did not end within 0.5 seconds, which is the limit" == report.reason
    assert not report.transient
