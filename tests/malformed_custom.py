"""Datasets with Python code of their own that must be refused, and some that must not."""

from __future__ import annotations

from tests.bundle_cases import DATASETS, Good, Malformed, SeenBy, digest

SPECIFIC = b"""import csv


def prepare_data(path):
    rows = list(csv.reader(open(f"{path}/stars.csv")))
    csv.writer(open(f"{path}/train.csv", "w")).writerows(rows[:4])
    csv.writer(open(f"{path}/test.csv", "w")).writerows(rows[4:])


def get_train_data(path):
    rows = list(csv.reader(open(f"{path}/train.csv")))
    return [[float(x) for x in row[:-1]] for row in rows], [row[-1] for row in rows]


def get_test_data(path):
    rows = list(csv.reader(open(f"{path}/test.csv")))
    return [[float(x) for x in row[:-1]] for row in rows], [row[-1] for row in rows]
"""
CUSTOM_FILES = {
    "specific.py": SPECIFIC,
    "stars.csv": b"1,2,cepheid\n3,4,mira\n1,1,cepheid\n4,4,mira\n2,1,cepheid\n3,3,mira\n",
    "light.csv": b"0\n",
}


def _custom(name: str, expected_field: str, lines: str) -> Malformed:
    """A dataset with Python code of its own, but for what is wrong in ``lines``."""
    manifest = f"name: stars\nworkflow_elements: [classifier]\n{lines}\n"
    return Malformed(name, DATASETS, {"manifest.yaml": manifest.encode(), **CUSTOM_FILES}, expected_field)


MALFORMED_CUSTOM = (
    _custom("no Python file among several", "extra_files", "data_file: stars.csv\nextra_files: [light.csv]"),
    _custom("extra files alone, none of them Python", "extra_files", "extra_files: [stars.csv, light.csv]"),
    _custom("a Python file in capitals", "extra_files", "data_file: stars.csv\nextra_files: [SPECIFIC.PY]"),
    _custom("two Python files, none called specific.py", "extra_files", "extra_files: [read.py, split.py]"),
    _custom("two Python files, one as data file", "extra_files", "data_file: read.py\nextra_files: [split.py]"),
    _custom("extra files as a mapping", "extra_files", "extra_files: {specific.py: light.csv}"),
    _custom("an extra file that is a number", "extra_files[1]", "extra_files: [specific.py, 5]"),
    _custom("an extra file elsewhere", "extra_files[1]", "extra_files: [specific.py, ../light.csv]"),
    _custom("the manifest as an extra file", "extra_files[1]", "extra_files: [specific.py, manifest.yaml]"),
    _custom("an extra file twice", "extra_files[1]", "extra_files: [specific.py, specific.py]"),
    _custom("an extra file twice but for case", "extra_files[2]",
            "extra_files: [specific.py, light.csv, Light.csv]"),
    _custom("the data file among the extra files", "extra_files[1]",
            "data_file: stars.csv\nextra_files: [specific.py, stars.csv]"),
    _custom("a share for custom files", "split", "extra_files: [specific.py]\nsplit: {held_out_test: 0.5}"),
    _custom("a share for a single Python file", "split", "data_file: specific.py\nsplit: {held_out_test: 0.5}"),
    _custom("custom in capitals", "split", "extra_files: [specific.py]\nsplit: Custom"),
    _custom("a custom split as a mapping", "split.custom", "extra_files: [specific.py]\nsplit: {custom: true}"),
    _custom("a target column of custom files that is a number", "target_column",
            "extra_files: [specific.py]\ntarget_column: 3"),
    _custom("a format", "format", "extra_files: [specific.py]\nformat: custom"),
    _custom("a digest of an extra file that is not named", "files[light.csv]",
            f"extra_files: [specific.py]\nfiles: {{light.csv: {digest(b'')}}}"),
    Malformed("custom files without a workflow", DATASETS,
              {"manifest.yaml": b"name: stars\nextra_files: [specific.py]\n", **CUSTOM_FILES}, "workflow_elements"),
    Malformed(
        "a missing extra file", DATASETS,
        {
            "manifest.yaml": b"{name: stars, workflow_elements: [classifier], extra_files: [specific.py, light.csv]}",
            "specific.py": SPECIFIC,
        },
        "light.csv", SeenBy.INTAKE,
    ),
)  # fmt: skip

GOOD_CUSTOM = (
    Good("custom files", DATASETS, {
        "manifest.yaml": b"name: stars\nworkflow_elements: [feature_extractor, classifier]\ndata_file: stars.csv\n"
        b"extra_files: [light.csv, specific.py]\nsplit: custom\nuser: alice.b@lab-1\n",
        **CUSTOM_FILES,
    }),
    Good("a Python file alone, by another name", DATASETS, {
        "manifest.yaml": b"{name: made, workflow_elements: [regressor], target_column: y, data_file: made.py}",
        "made.py": SPECIFIC,
    }),
    Good("several Python files", DATASETS, {
        "manifest.yaml": b"name: stars\nworkflow_elements: [classifier]\nextra_files: [read.py, specific.py]\n"
        b"files:\n  read.py: " + digest(b"").encode() + b"\n  specific.py: " + digest(SPECIFIC).encode(),
        "read.py": b"", "specific.py": SPECIFIC,
    }),
)  # fmt: skip
