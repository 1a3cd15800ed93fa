"""Datasets that can't be used say why; folds are generated as scikit-learn would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import ShuffleSplit, StratifiedKFold, train_test_split

from datarun_daemon.runner.protocol import (
    FoldsGenerated,
    FoldsNotGenerated,
    FoldVanished,
    GenerateFoldsTask,
    PrepareFailed,
)

from .conftest import Data, House
from .test_hostile_folds import GOOD


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a,b\n1,2\n3,4\n", "there is no column 'y' (target_column); columns are: a, b"),
        (b"a,y\n\xff,1\n2,2\n", "is not UTF-8 text"),
        (b"a,y\n1,2\n1,2,3\n", "Expected 2 fields in line 3, saw 3"),
        (b"a,y\n1,2,3\n1,2,3\n", "rows have more fields than the header has names (2)"),
        (b"a,b,y\n1,2,3\n4,5\n1,2,3\n", "fewer than 3 fields in record 3"),
        (b"a,a,y\n1,2,3\n4,5,6\n", "columns of the same name: a"),
        (b"a,y\n1,2\n", "has 1 rows; at least 2 are needed"),
        (b"", "can't be read as CSV"),
        (b"y\n1\n2\n", "there is no column but the target 'y'"),
        (b"y,a\n1,1\n,2\n3,3\n,4\n", "the target 'y' is missing in 2 of 4 rows: data row 2, 4"),
        (b"a,y\n" + b"1,x\n" * 2, "can't be split with held_out_test 0.99"),
    ],
)
def test_a_file_that_is_no_dataset_is_refused_with_the_reason(house: House, content: bytes, reason: str):
    path = house.folder / "bad.csv"
    path.write_bytes(content)

    refused = house.prepare("bad", path, "y", ("classifier",), share=0.99 if b"x" in content else 0.5)

    assert isinstance(refused, PrepareFailed), refused
    assert reason in refused.reason
    assert not refused.transient


def test_labels_lie_in_a_folder_that_only_their_owner_opens(iris: Data):
    labels = iris.folder / "labels"

    assert (labels.stat().st_mode & 0o777, (labels / "y_train.npy").stat().st_mode & 0o777) == (0o700, 0o600)


def generated(house: House, data: Data, splitter: str, **parameters: Any) -> tuple[Any, Path]:
    house._count += 1
    path = house.folder / f"indices-{house._count}.npy"
    house.pool.prepare(GenerateFoldsTask("k", data.name, data.folder, splitter, parameters, path, max_folds=100))
    return house.wait_for(lambda report: isinstance(report, FoldsGenerated | FoldsNotGenerated)), path


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("ShuffleSplit", {"n_splits": 8, "test_size": 0.2, "random_state": 57}), ("StratifiedKFold", {"n_splits": 5})],
)
def test_folds_are_those_of_the_splitter(house: House, iris: Data, name: str, parameters: dict[str, Any]):
    train, _ = train_test_split(pd.read_csv(iris.csv), test_size=0.2, random_state=42)
    splitter: Any = {"ShuffleSplit": ShuffleSplit, "StratifiedKFold": StratifiedKFold}[name](**parameters)
    expected = [(a.tolist(), b.tolist()) for a, b in splitter.split(train, train["y"])]

    report, path = generated(house, iris, name, **parameters)

    rows = np.load(path, allow_pickle=False)
    found = [
        (rows[f.offset : f.offset + f.n_train].tolist(), rows[f.offset + f.n_train :][: f.n_test].tolist())
        for f in report.folds
    ]
    assert expected == found
    assert [max(a + b) for a, b in expected] == [fold.max_index for fold in report.folds]


@pytest.mark.parametrize(
    ("splitter", "parameters", "reason"),
    [
        ("GroupKFold", {}, "needs groups"),
        ("Nonsense", {}, "'Nonsense' is no splitter of sklearn.model_selection; those are: "),
        ("GridSearchCV", {}, "is no splitter"),
        ("train_test_split", {}, "is no splitter"),
        ("KFold", {"splits": 3}, "unexpected keyword argument 'splits'"),
        ("KFold", {"n_splits": 1}, "at least one train/test split"),
        ("StratifiedKFold", {"n_splits": 50}, "can't split 120 rows"),
        ("LeaveOneOut", {}, "makes 120 folds; at most 100 are accepted"),
        ("ShuffleSplit", {"n_splits": 10**12}, "at most 100 are accepted"),
        ("ShuffleSplit", {"n_splits": "many"}, "can't split"),
    ],
)
def test_what_is_no_splitter_of_ours_is_refused_with_the_reason(
    house: House, iris: Data, splitter: str, parameters: dict[str, Any], reason: str
):
    report, _ = generated(house, iris, splitter, **parameters)

    assert isinstance(report, FoldsNotGenerated)
    assert reason in report.reason
    assert not report.transient


def test_a_fold_of_a_dataset_that_can_not_be_loaded_vanishes_with_the_reason(house: House):
    path = house.folder / "broken.csv"
    path.write_text("a,y\n" + "1,2\n" * 10)
    data = house.prepare("broken", path, "y", ("classifier",))
    assert isinstance(data, Data)
    (data.folder / "X_train.pickle").write_bytes(b"no pickle")

    report = house.end_of(house.start(data, house.submission(classifier=GOOD)))

    assert isinstance(report, FoldVanished)
    assert "its dataset can't be loaded" in report.reason
