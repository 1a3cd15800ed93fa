"""Manifests of datasets with Python code of their own: which files are what, and what does not go together."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from datarun_daemon.client.packing import kind_of
from datarun_daemon.core.model import BundleKind, Split
from datarun_daemon.spool.manifest import DatasetManifest, parse_manifest
from tests.bundle_cases import refused
from tests.malformed_custom import GOOD_CUSTOM

REFERENCE = (Path(__file__).parents[1] / "docs" / "manifests.md").read_text()
BY_NAME = {bundle.name: bundle for bundle in GOOD_CUSTOM}


@pytest.mark.parametrize(
    ("lines", "named", "specific"),
    [
        ("extra_files: [specific.py]", ("specific.py",), "specific.py"),
        ("extra_files: [light.csv, mine.py]", ("light.csv", "mine.py"), "mine.py"),
        ("data_file: stars.csv\nextra_files: [mine.py]", ("stars.csv", "mine.py"), "mine.py"),
        ("data_file: mine.py", ("mine.py",), "mine.py"),
        ("data_file: mine.py\nextra_files: [specific.py]", ("mine.py", "specific.py"), "specific.py"),
        ("data_file: stars.csv\ntarget_column: x\nextra_files: []", ("stars.csv",), ""),
    ],
)
def test_the_format_of_a_dataset_follows_from_its_files(lines: str, named: tuple[str, ...], specific: str) -> None:
    manifest = parse_manifest(BundleKind.DATASETS, f"name: s\nworkflow_elements: [classifier]\n{lines}".encode())

    assert isinstance(manifest, DatasetManifest)
    assert (named, specific) == (manifest.named_files, manifest.specific)
    assert not manifest.digested


def test_a_custom_dataset_becomes_a_value() -> None:
    good = BY_NAME["custom files"]
    manifest = parse_manifest(good.kind, good.files["manifest.yaml"])

    expected = DatasetManifest(
        "stars", "", ("feature_extractor", "classifier"), "stars.csv", Split(None),
        extra_files=("light.csv", "specific.py"), specific="specific.py", format="custom",
        user="alice.b@lab-1",
    )  # fmt: skip
    assert expected == manifest


def test_a_custom_dataset_is_digested_once_all_of_its_files_are() -> None:
    good = BY_NAME["several Python files"]
    raw = good.files["manifest.yaml"]

    assert parse_manifest(good.kind, raw).digested
    assert not parse_manifest(good.kind, raw.replace(b"[read.py", b"[light.csv, read.py")).digested


def test_all_errors_of_a_custom_dataset_are_told_at_once() -> None:
    problems = refused(
        BundleKind.DATASETS,
        "name: a b\ntarget_column: 3\nextra_files: [a.py, b.py, ../c.csv, A.py]\nsplit: {held_out_test: 0.5}\nuser: .x",
    )

    expected = {
        "name", "target_column", "workflow_elements", "extra_files", "extra_files[2]", "extra_files[3]", "split",
        "user",
    }  # fmt: skip
    assert expected == {problem.field for problem in problems}


def blocks(language: str) -> list[str]:
    """What the reference shows in that language."""
    return re.findall(rf"```{language}\n(.*?)```", REFERENCE, re.DOTALL)


@pytest.mark.parametrize("text", [text for text in blocks("yaml") if not text.startswith(("files:", "status:"))])
def test_each_manifest_in_the_reference_is_read(text: str) -> None:
    parse_manifest(kind_of(text.encode()), text.encode())


def test_every_action_has_an_example_in_the_reference() -> None:
    shown = set(re.findall(r"action: (\w+)", "".join(blocks("yaml"))))

    assert shown == {"split", "custom_split", "predictions", "cancel", "priority", "rerun"}


def test_the_python_file_in_the_reference_reads_and_splits_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [specific] = [text for text in blocks("python") if text.startswith("# specific.py")]
    [training] = [text for text in blocks("python") if "def train_submission" in text]
    (tmp_path / "specific_of_the_reference.py").write_text(specific + training)
    stars = "".join(f"{star},{'mira' if star % 2 else 'cepheid'}\n" for star in range(20))
    (tmp_path / "stars.csv").write_text(f"star,type\n{stars}")
    curves = "".join(f"{star},{star / 10}\n" * (star + 1) for star in range(20))
    (tmp_path / "light_curves.csv").write_text(f"star,magnitude\n{curves}")
    (tmp_path / "sub_of_the_reference").mkdir()
    (tmp_path / "sub_of_the_reference" / "classifier.py").write_text(
        "class Classifier:\n    def fit(self, X, y):\n        self.seen = len(X), list(y)\n"
        "    def predict_proba(self, X):\n        return [len(x) for x in X]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    own: ModuleType = __import__("specific_of_the_reference")

    own.prepare_data(str(tmp_path))
    X, y = own.get_train_data(str(tmp_path))
    X_test, y_test = own.get_test_data(str(tmp_path))
    trained = own.train_submission("sub_of_the_reference", X, y, [3, 5])

    assert (len(X), len(y), len(X_test), len(y_test)) == (16, 16, 4, 4)
    assert sorted(map(len, [*X, *X_test])) == list(range(1, 21))
    assert trained.seen == (2, list(y[[3, 5]]))
    assert own.test_submission(trained, X_test, range(4)) == list(map(len, X_test))
