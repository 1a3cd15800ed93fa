"""Small RAMP kits, written by functions; and manifests of kits that must be refused, and some that must not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.bundle_cases import DATASETS, Good, Malformed, SeenBy, digest

#: of a kit that classifies; its get_cv makes two folds of the 40 training rows
PROBLEM = """\
import os

import pandas as pd
import rampwf as rw
from sklearn.model_selection import StratifiedShuffleSplit

problem_title = "Two kinds of flowers"
_labels = ["red", "white"]
Predictions = rw.prediction_types.make_multiclass(label_names=_labels)
workflow = rw.workflows.Estimator()
score_types = [rw.score_types.Accuracy(name="acc")]


def get_cv(X, y):
    return StratifiedShuffleSplit(n_splits=2, test_size=0.25, random_state=57).split(X, y)


def get_train_data(path="."):
    return _read(path, "train.csv")


def get_test_data(path="."):
    return _read(path, "test.csv")


def _read(path, name):
    data = pd.read_csv(os.path.join(path, "data", "flowers", name))
    return data.drop(columns="kind"), data["kind"].to_numpy()
"""
ESTIMATOR = """\
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def get_estimator():
    return make_pipeline(StandardScaler(), LogisticRegression(random_state=0))
"""
N_TRAIN, N_TEST = 40, 10


def flowers(rows: int) -> str:
    """A table of two columns of numbers, and a label that they tell."""
    lines = [f"{row % 7}.5,{row * row % 11},{'red' if row % 7 < 3 else 'white'}" for row in range(rows)]
    return "\n".join(["width,height,kind", *lines, ""])


def write_kit(
    folder: Path,
    *,
    problem: str = PROBLEM,
    data: Mapping[str, str] | None = None,
    submissions: Mapping[str, Mapping[str, str]] | None = None,
    more: Mapping[str, str] | None = None,
) -> Path:
    """A kit in ``folder``; by default it classifies flowers, with one submission, starting_kit.

    Args:
        data: the files in data/, by their paths there.
        submissions: the files of each.
        more: files elsewhere in the kit, by their paths.
    """
    if data is None:
        data = {"flowers/train.csv": flowers(N_TRAIN), "flowers/test.csv": flowers(N_TEST)}
    files = {"problem.py": problem, **{f"data/{path}": text for path, text in data.items()}, **(more or {})}
    for name, texts in (submissions or {"starting_kit": {"estimator.py": ESTIMATOR}}).items():
        files |= {f"submissions/{name}/{path}": text for path, text in texts.items()}
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


_FILES = {"problem.py": PROBLEM.encode(), "data/train.csv": b"a,kind\n1,red\n"}


def _kit(name: str, expected_field: str, lines: str, *, seen_by: SeenBy = SeenBy.MANIFEST) -> Malformed:
    manifest = f"name: flowers\nformat: ramp\n{lines}\n"
    return Malformed(name, DATASETS, {"manifest.yaml": manifest.encode(), **_FILES}, expected_field, seen_by)


def _declared(*paths: str) -> str:
    """Digests of files that are empty."""
    return "files:\n" + "".join(f'  "{path}": {digest(b"")}\n' for path in ("problem.py", *paths))


MALFORMED_KITS = (
    _kit("a target column of a kit", "target_column", "target_column: kind"),
    _kit("workflow elements of a kit", "workflow_elements", "workflow_elements: [classifier]"),
    _kit("a data file of a kit", "data_file", "data_file: train.csv"),
    _kit("extra files of a kit", "extra_files", "extra_files: [problem.py]"),
    _kit("a share for a kit", "split", "split: {held_out_test: 0.5}"),
    _kit("another split of a kit", "split", "split: own"),
    _kit("a field that no kit has", "title", "title: Flowers"),
    _kit("digests without problem.py", "files", f"files: {{data/train.csv: {digest(b'')}}}"),
    _kit("a path that leads out of a kit", "files[../train.csv]", _declared("../train.csv")),
    _kit("a path that leads out of a kit by a detour", "files[data/../../x]", _declared("data/../../x")),
    _kit("an absolute path", "files[/etc/passwd]", _declared("/etc/passwd")),
    _kit("a path with an empty name", "files[data//x]", _declared("data//x")),
    _kit("a path that ends with a slash", "files[data/]", _declared("data/")),
    _kit("a path with a backslash", r"files[data\x]", _declared(r"data\\x")),
    _kit("a path with a space at the end of a folder", "files[data /x]", _declared("data /x")),
    _kit("a hidden file in a folder of a kit", "files[data/.x]", _declared("data/.x")),
    _kit("a hidden folder in a kit", "files[.git/x]", _declared(".git/x")),
    _kit("a path of nine levels", "files[a/b/c/d/e/f/g/h/i]", _declared("a/b/c/d/e/f/g/h/i")),
    _kit("the manifest among a kit's files", "files[manifest.yaml]", _declared("manifest.yaml")),
    _kit("a submission among a kit's files", "files[submissions/a/b.py]", _declared("submissions/a/b.py")),
    _kit("a cache among a kit's files", "files[data/__pycache__/b]", _declared("data/__pycache__/b")),
    _kit("a path twice but for case", "files[data/X.csv]", _declared("data/x.csv", "data/X.csv")),
    _kit("a folder twice but for case", "files[Data/y.csv]", _declared("data/x.csv", "Data/y.csv")),
    _kit("a path twice but for how an accent is written", "files[data/e\u0301.csv]",
         _declared("data/\u00e9.csv", "data/e\u0301.csv")),
    _kit("a file that is a folder too", "files[data/x/y]", _declared("data/x", "data/x/y")),
    _kit("a folder that is a file too", "files[data/x]", _declared("data/x/y", "data/x")),
    _kit("a path of a kit as a number", "files", "files: [problem.py]"),
    Malformed("a format in capitals", DATASETS, {
        "manifest.yaml": b"{name: a, format: RAMP, target_column: b, workflow_elements: [classifier], "
        b"data_file: a.csv}",
        "a.csv": b"a,b\n1,2\n",
    }, "format"),
    Malformed("a path in the digests of another dataset", DATASETS, {
        "manifest.yaml": b"{name: a, target_column: b, workflow_elements: [classifier], data_file: a.csv, files: "
        b"{data/a.csv: " + digest(b"").encode() + b"}}",
        "a.csv": b"a,b\n1,2\n",
    }, "files[data/a.csv]"),
    Malformed("a kit without problem.py", DATASETS, {
        "manifest.yaml": b"{name: flowers, format: ramp}", "data/train.csv": b"",
    }, "problem.py", SeenBy.INTAKE),
)  # fmt: skip

GOOD_KITS = (
    Good("a kit that declares nothing", DATASETS, {"manifest.yaml": b"{name: flowers, format: ramp}", **_FILES}),
    Good("a kit that declares its files", DATASETS, {
        "manifest.yaml": b"name: flowers\nformat: ramp\nsplit: custom\nuser: alice\nfiles:\n"
        + "".join(f"  {path}: {digest(data)}\n" for path, data in _FILES.items()).encode(),
        **_FILES,
    }),
    Good("a kit with packages", DATASETS, {
        "manifest.yaml": b"{name: flowers, format: ramp}", **_FILES, "external_imports/helping/__init__.py": b"",
        "a/b/c/d/e/f/g/h": b"", "data/manifest.yaml": b"",
    }),
)  # fmt: skip
