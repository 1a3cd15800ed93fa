"""A fold's predictions are, bit for bit, those of a plain script."""

from __future__ import annotations

import csv
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import datasets
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import StratifiedShuffleSplit, train_test_split

from .conftest import Data, House, write_csv, write_data

FEATURE_EXTRACTOR = """
    import numpy as np
    class FeatureExtractor:
        def fit(self, X, y):
            assert y.name == "y" and y.index.equals(X.index)
            self.mean = X.mean()
        def transform(self, X):
            return np.column_stack([(X - self.mean).to_numpy(), X["x0"] * X["x1"]])
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
REGRESSOR = """
    from sklearn.linear_model import Ridge
    class Regressor(Ridge):
        pass
"""
FOREST_REGRESSOR = """
    from sklearn.ensemble import RandomForestRegressor
    class Regressor(RandomForestRegressor):
        def __init__(self):
            super().__init__(n_estimators=3, random_state=3)
"""


class Extractor:
    def fit(self, X: pd.DataFrame, y: Any) -> None:
        self.mean = X.mean()

    def transform(self, X: pd.DataFrame) -> Any:
        return np.column_stack([(X - self.mean).to_numpy(), X["x0"] * X["x1"]])


def sets(data: Data) -> tuple[Any, Any, Any]:
    """X_train, y_train, X_test as DataFrames and a Series."""
    train, test = train_test_split(pd.read_csv(data.csv), test_size=0.2, random_state=42)
    return train.drop(columns=["y"]), train["y"], test.drop(columns=["y"])


def predictions(result: dict[str, Any]) -> tuple[Any, Any]:
    assert (result["state"], result["stage"]) == ("TESTED", None), result["log_messages"]
    names = ("full_train_predictions", "test_predictions")
    full, test = (np.load(result["out"] / f"{name}.npy", allow_pickle=False) for name in names)
    return full, test


def assert_same(expected: tuple[Any, Any], found: tuple[Any, Any]) -> None:
    for one, other in zip(expected, found, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.tobytes() == np.ascontiguousarray(other).tobytes()


def prepared(house: House, name: str, elements: tuple[str, ...]) -> Data:
    bunch = {"iris": datasets.load_iris, "wine": datasets.load_wine, "cancer": datasets.load_breast_cancer,
             "diabetes": datasets.load_diabetes}[name]()
    path = house.folder / f"{name}.csv"
    data = house.prepare(name, write_data(path, bunch, text_labels=name in ("iris", "wine")), "y", elements)
    assert isinstance(data, Data), data
    return data


@pytest.mark.parametrize("name", ["iris", "wine", "cancer"])
def test_a_classifier_predicts_what_a_plain_script_does(house: House, name: str):
    data = prepared(house, name, ("classifier",))
    X, y, X_test = sets(data)
    train_is = np.random.default_rng(1).permutation(len(X))[: len(X) * 2 // 3]
    plain = RandomForestClassifier(n_estimators=5, random_state=3)
    plain.fit(X.values[train_is], np.asarray(y)[train_is])

    result = house.run(data, house.submission(classifier=CLASSIFIER), train_is=train_is.tolist())

    assert_same((plain.predict_proba(X.values), plain.predict_proba(X_test.values)), predictions(result))
    assert list(map(str, plain.classes_)) == result["classes"]


def test_a_calibrator_is_fitted_on_a_tenth_the_classifier_has_not_seen(house: House):
    data = prepared(house, "wine", ("classifier", "calibrator"))
    X, y, X_test = sets(data)
    train_is = np.arange(0, len(X), 1)
    X_is, y_is = X.values[train_is], np.asarray(y)[train_is]
    cut = StratifiedShuffleSplit(n_splits=1, test_size=0.1, random_state=57)
    fit_is, calibrate_is = next(cut.split(X_is, y_is))
    plain = RandomForestClassifier(n_estimators=5, random_state=3).fit(X_is[fit_is], y_is[fit_is])
    calibrator = LogisticRegression().fit(plain.predict_proba(X_is[calibrate_is]), y_is[calibrate_is])

    submission = house.submission(classifier=CLASSIFIER, calibrator=CALIBRATOR)
    result = house.run(data, submission, train_is=train_is.tolist())

    expected = [calibrator.predict_proba(plain.predict_proba(part)) for part in (X.values, X_test.values)]
    assert_same((expected[0], expected[1]), predictions(result))


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_feature_extractor_sees_frames_and_its_features_reach_the_classifier(house: House, calibrated: bool):
    elements = ("feature_extractor", "classifier") + (("calibrator",) if calibrated else ())
    data = prepared(house, "wine", elements)
    X, y, X_test = sets(data)
    train_is = np.arange(len(X))[::-1]
    extractor = Extractor()
    extractor.fit(X.iloc[train_is], y.iloc[train_is])
    features, labels = extractor.transform(X.iloc[train_is]), np.asarray(y)[train_is]
    plain: Any = RandomForestClassifier(n_estimators=5, random_state=3)
    if calibrated:
        cut = StratifiedShuffleSplit(n_splits=1, test_size=0.1, random_state=57)
        fit_is, calibrate_is = next(cut.split(features, labels))
        plain.fit(features[fit_is], labels[fit_is])
        last = LogisticRegression().fit(plain.predict_proba(features[calibrate_is]), labels[calibrate_is])
    else:
        plain.fit(features, labels)

    submission = house.submission(feature_extractor=FEATURE_EXTRACTOR, classifier=CLASSIFIER, calibrator=CALIBRATOR)
    result = house.run(data, submission, train_is=train_is.tolist())

    expected = [plain.predict_proba(extractor.transform(part)) for part in (X, X_test)]
    if calibrated:
        expected = [last.predict_proba(part) for part in expected]
    assert_same((expected[0], expected[1]), predictions(result))


@pytest.mark.parametrize("text", [REGRESSOR, FOREST_REGRESSOR])
def test_a_regressor_predicts_what_a_plain_script_does(house: House, text: str):
    data = prepared(house, "diabetes", ("regressor",))
    X, y, X_test = sets(data)
    train_is = np.arange(0, len(X), 3)
    plain = Ridge() if text is REGRESSOR else RandomForestRegressor(n_estimators=3, random_state=3)
    plain.fit(X.values[train_is], np.asarray(y)[train_is])

    result = house.run(data, house.submission(regressor=text), train_is=train_is.tolist())

    assert_same((plain.predict(X.values), plain.predict(X_test.values)), predictions(result))


def test_a_regressor_gets_the_features_of_its_extractor(house: House):
    data = prepared(house, "diabetes", ("feature_extractor", "regressor"))
    X, y, X_test = sets(data)
    train_is = np.arange(0, len(X), 2)
    extractor = Extractor()
    extractor.fit(X.iloc[train_is], y.iloc[train_is])
    plain = Ridge().fit(extractor.transform(X.iloc[train_is]), y.iloc[train_is])

    submission = house.submission(feature_extractor=FEATURE_EXTRACTOR, regressor=REGRESSOR)
    result = house.run(data, submission, train_is=train_is.tolist())

    expected = [plain.predict(extractor.transform(part)) for part in (X, X_test)]
    assert_same((expected[0], expected[1]), predictions(result))


def test_a_frame_reaches_the_extractor_with_its_columns_types_and_index(house: House):
    columns = {"a": range(20), "name": [f"n{i % 3}" for i in range(20)], "gap": ["" if i % 5 else i for i in range(20)]}
    path = write_csv(house.folder / "mixed.csv", {**columns, "y": [f"c{i % 2}" for i in range(20)]})
    data = house.prepare("mixed", path, "y", ("feature_extractor", "classifier"))
    assert isinstance(data, Data), data
    X, _, _ = sets(data)
    submission = house.submission(
        feature_extractor="""
            class FeatureExtractor:
                def fit(self, X, y):
                    print(X.dtypes.to_dict(), y.dtype, list(X.index), list(y.index), X.iloc[0].to_dict())
                def transform(self, X):
                    return X[["a"]].to_numpy()
        """,
        classifier=CLASSIFIER,
    )

    result = house.run(data, submission, train_is=[3, 1, 2])

    picked = X.iloc[[3, 1, 2]]
    expected = f"{X.dtypes.to_dict()} str {list(picked.index)} {list(picked.index)} {picked.iloc[0].to_dict()}\n"
    assert expected == (result["out"] / "log.txt").read_text()


def test_the_table_of_predictions_reads_back_as_the_same_numbers(house: House, iris: Data):
    result = house.run(iris, house.submission(classifier=CLASSIFIER))

    with (result["out"] / "full_train_predictions.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["row", "setosa", "versicolor", "virginica"]
    assert [str(number) for number in range(iris.n_train)] == [row[0] for row in rows]
    assert predictions(result)[0].tolist() == [[float(value) for value in row[1:]] for row in rows]


def test_siblings_are_importable_both_ways(house: House, iris: Data):
    submission = house.submission(
        tools="SEED = 4",
        classifier="""
            from sklearn.tree import DecisionTreeClassifier
            from .tools import SEED as one
            from tools import SEED as other
            class Classifier(DecisionTreeClassifier):
                def __init__(self):
                    super().__init__(random_state=one + other)
        """,
    )

    assert house.run(iris, submission)["state"] == "TESTED"


def test_folds_do_not_share_a_random_state(house: House, iris: Data):
    submission = house.submission(
        classifier="""
            import numpy as np, random
            class Classifier:
                def fit(self, X, y):
                    print(np.random.random(), random.random())
                def predict_proba(self, X):
                    return X
        """
    )

    drawn = [(house.run(iris, submission)["out"] / "log.txt").read_text().split() for _ in range(3)]

    assert len({number for pair in drawn for number in pair}) == 6


def test_what_a_fold_changes_in_the_data_no_other_fold_sees(house: House, iris: Data):
    vandal = house.submission(
        classifier="""
            class Classifier:
                def fit(self, X, y): pass
                def predict_proba(self, X):
                    X[:] = -1
                    return X
        """
    )
    reader = house.submission(
        classifier="""
            class Classifier:
                def fit(self, X, y): pass
                def predict_proba(self, X): return X
        """
    )

    vandalised = predictions(house.run(iris, vandal))[0]
    seen = predictions(house.run(iris, reader))[0]

    assert (vandalised == -1).all()
    assert sets(iris)[0].values.tolist() == seen.tolist()


def test_the_prepared_folder_holds_no_test_labels(house: House):
    csv_file = write_csv(house.folder / "secret.csv", {"x": range(30), "y": [f"secret{i:02}" for i in range(30)]})
    data = house.prepare("secret", csv_file, "y", ("feature_extractor", "classifier"), share=0.5)
    assert isinstance(data, Data), data
    _, test = train_test_split(pd.read_csv(csv_file), test_size=0.5, random_state=42)

    content = b"".join(path.read_bytes() for path in data.folder.rglob("*") if path.is_file())

    kept = [label for label in test["y"] if label.encode() in content or label.encode("utf-32-le") in content]
    assert kept == []


def test_a_fold_gets_the_labels_of_its_training_rows_alone(house: House):
    csv_file = write_csv(house.folder / "own.csv", {"x": range(30), "y": [f"secret{i:02}" for i in range(30)]})
    data = house.prepare("own", csv_file, "y", ("classifier",))
    assert isinstance(data, Data), data
    submission = house.submission(
        classifier="""
            import re
            class Classifier:
                def fit(self, X, y):
                    print(sorted(y))
                    found = set()
                    for line in open("/proc/self/maps"):
                        first, last = (int(part, 16) for part in line.split()[0].split("-"))
                        if "rw" not in line or "[v" in line or last - first > 1 << 28:
                            continue
                        with open("/proc/self/mem", "rb") as memory:
                            memory.seek(first)
                            try: block = memory.read(last - first)
                            except OSError: continue
                        found |= set(re.findall(rb"secret[0-9]{2}", block))
                        found |= {m.replace(bytes(3), b"") for m in re.findall(rb"(?:[secrt0-9]\\0\\0\\0){8}", block)}
                    print(sorted(name.decode() for name in found if name.startswith(b"secret")))
                def predict_proba(self, X): return X
        """
    )
    labels = sets(data)[1].tolist()

    house.run(data, submission, train_is=[4, 5, 6])
    result = house.run(data, submission, train_is=[0, 1, 2])

    given, found = (result["out"] / "log.txt").read_text().splitlines()
    assert str(sorted(labels[:3])) == given
    assert given == found


def test_probabilities_of_a_reduced_frame_work(house: House):
    data = prepared(house, "cancer", ("feature_extractor", "classifier"))
    X, y, X_test = sets(data)
    pca = PCA(3, random_state=0).fit(X)
    plain = RandomForestClassifier(n_estimators=5, random_state=3).fit(pca.transform(X), y)

    submission = house.submission(
        feature_extractor="""
            from sklearn.decomposition import PCA
            class FeatureExtractor(PCA):
                def __init__(self):
                    super().__init__(3, random_state=0)
        """,
        classifier=CLASSIFIER,
    )
    result = house.run(data, submission, train_is=range(data.n_train))

    expected = [plain.predict_proba(pca.transform(part)) for part in (X, X_test)]
    assert_same((expected[0], expected[1]), predictions(result))
