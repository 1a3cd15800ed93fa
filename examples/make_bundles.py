"""Makes bundles to try datarun with, from the data sets that come with scikit-learn.

    python examples/make_bundles.py DEST

writes, ready to be dropped into a spool's incoming folders,

    DEST/datasets/NAME/     six datasets, one for each workflow that datarun knows
    DEST/folds/NAME/        seven submissions (from examples/submissions) with their CV folds, which give
                            the row numbers in each way there is: .npy, .csv, .json, a list, base64, cv
    DEST/wrong/KIND/NAME/   five bundles with mistakes (from examples/wrong), to see what one is told

and prints the folder of each. Doing it again makes the same bundles.
"""

from __future__ import annotations

import base64
import json
import shutil
import sys
import zlib
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn import datasets
from sklearn.model_selection import ShuffleSplit

from datarun_daemon.client.packing import pack

HERE = Path(__file__).resolve().parent

#: writes the row numbers ``rows`` into the bundle ``folder``, if they need a file, and returns what
#: the manifest says: the file's name, or the row numbers themselves
Encoding = Callable[[Path, str, Any], str]


class Dataset(NamedTuple):
    name: str
    load: Callable[..., Any]
    target_column: str
    workflow_elements: str
    #: the share of the rows that datarun holds out for the test
    held_out_test: float


class Submission(NamedTuple):
    #: of its folder in examples/submissions
    name: str
    id: int | str
    dataset: str
    #: None: the manifest names the splitter, and datarun makes the folds
    encoding: Encoding | None
    n_folds: int = 3
    priority: str = "L"


def as_npy(folder: Path, name: str, rows: Any) -> str:
    np.save(folder / f"{name}.npy", rows)
    return f"{name}.npy"


def as_csv(folder: Path, name: str, rows: Any) -> str:
    np.savetxt(folder / f"{name}.csv", rows, fmt="%d", header="row", comments="")
    return f"{name}.csv"


def as_json(folder: Path, name: str, rows: Any) -> str:
    (folder / f"{name}.json").write_text(json.dumps(rows.tolist()))
    return f"{name}.json"


def as_list(folder: Path, name: str, rows: Any) -> str:
    return json.dumps(rows.tolist())


def as_base64(folder: Path, name: str, rows: Any) -> str:
    return base64.b64encode(zlib.compress(rows.astype("<i8").tobytes())).decode()


DATASETS = [
    Dataset("iris", datasets.load_iris, "species", "classifier", 0.5),
    Dataset("breast_cancer", datasets.load_breast_cancer, "diagnosis", "feature_extractor, classifier", 0.3),
    Dataset("digits", datasets.load_digits, "digit", "classifier, calibrator", 0.5),
    Dataset("wine", datasets.load_wine, "cultivar", "feature_extractor, classifier, calibrator", 0.3),
    Dataset("diabetes", datasets.load_diabetes, "progression", "regressor", 0.3),
    Dataset(
        "diabetes_features", datasets.load_diabetes, "progression", "feature_extractor, regressor", 0.3
    ),
]

SUBMISSIONS = [
    Submission("iris_forest", 1, "iris", as_npy, n_folds=4, priority="H"),
    Submission("iris_logistic", 2, "iris", as_list),
    Submission("cancer_logistic", 3, "breast_cancer", as_csv),
    Submission("digits_trees", 4, "digits", as_json, n_folds=2),
    Submission("wine_bayes", "wine-bayes", "wine", as_base64),
    Submission("diabetes_ridge", 6, "diabetes", None, n_folds=8),
    Submission("diabetes_boosting", 7, "diabetes_features", as_npy, priority="H"),
]


def make_bundles(dest: Path) -> list[Path]:
    """The folders of the good bundles below ``dest``, datasets first; dest/wrong holds the others."""
    made = [make_dataset(dataset, dest / "datasets" / dataset.name) for dataset in DATASETS]
    made += [make_folds(submission, dest / "folds" / submission.name) for submission in SUBMISSIONS]
    shutil.copytree(HERE / "wrong", dest / "wrong", dirs_exist_ok=True)
    return made


def make_dataset(dataset: Dataset, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    loaded = dataset.load(as_frame=True)
    table = loaded.data.copy()
    words = dict(enumerate(getattr(loaded, "target_names", ())))
    table[dataset.target_column] = loaded.target.map(words) if words else loaded.target
    table.to_csv(folder / f"{dataset.name}.csv", index=False, lineterminator="\n")
    manifest = [
        f"name: {dataset.name}",
        f"target_column: {dataset.target_column}",
        f"workflow_elements: {dataset.workflow_elements}",
        f"data_file: {dataset.name}.csv",
        f"split: {{held_out_test: {dataset.held_out_test}, random_state: 42}}",
    ]
    return packed(folder, manifest)


def make_folds(submission: Submission, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    files = sorted((HERE / "submissions" / submission.name).glob("*.py"))
    for file in files:
        shutil.copyfile(file, folder / file.name)
    names = ", ".join(file.name for file in files)
    manifest = [
        f"submission: {{id: {submission.id}, dataset: {submission.dataset}, files: [{names}]}}",
        f"priority: {submission.priority}",
        *folds_of(submission, folder),
    ]
    return packed(folder, manifest)


def folds_of(submission: Submission, folder: Path) -> Sequence[str]:
    """The lines of the manifest that say on which rows to train and to validate."""
    n_splits = submission.n_folds
    if submission.encoding is None:
        return [f"cv: {{class: ShuffleSplit, n_splits: {n_splits}, test_size: 0.2, random_state: 57}}"]
    splitter = ShuffleSplit(n_splits=n_splits, test_size=0.2, random_state=57)
    lines = ["folds:"]
    for number, (train_is, test_is) in enumerate(splitter.split(np.empty(n_train_rows(submission.dataset)))):
        train = submission.encoding(folder, f"fold_{number}_train", train_is)
        test = submission.encoding(folder, f"fold_{number}_test", test_is)
        # the id of a fold is its own in the whole spool, so it tells whose fold it is
        lines.append(f"  - {{id: {submission.id}-{number}, train_is: {train}, test_is: {test}}}")
    return lines


def n_train_rows(name: str) -> int:
    """How many rows of a dataset datarun keeps for training: train_is and test_is are numbers of those."""
    dataset = next(dataset for dataset in DATASETS if dataset.name == name)
    n_rows = len(dataset.load().target)
    return n_rows - ceil(n_rows * dataset.held_out_test)


def packed(folder: Path, manifest: Sequence[str]) -> Path:
    """The bundle, with sizes and digests in its manifest: so the daemon knows at once when it is whole."""
    (folder / "manifest.yaml").write_text("\n".join([*manifest, ""]))
    pack(folder)
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python make_bundles.py DEST")
    for bundle in make_bundles(Path(sys.argv[1])):
        print(bundle)
