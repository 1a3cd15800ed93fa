"""Whatever is wrong with a bundle, its sender is told what, where and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bundles import fold_bundle, iris_bundle
from tests.daemon_process import RunningDaemon, wait_for
from tests.malformed import MALFORMED, SeenBy


def test_every_malformed_bundle_is_rejected_with_a_reason_that_names_the_field(daemon: RunningDaemon, tmp_path: Path):
    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    wait_for(lambda: daemon.catalog("DatasetSplit"), "the split")
    for bad in MALFORMED:
        folder = tmp_path / "bad" / bad.name
        folder.mkdir(parents=True)
        for name, content in bad.files.items():
            (folder / name).write_bytes(content)
        daemon.drop(folder, bad.kind.value, name=bad.name)

    for bad in MALFORMED:
        expected = "incomplete" if bad.seen_by is SeenBy.INTAKE else "rejected"
        receipt = daemon.wait_for_receipt(bad.kind.value, bad.name, status=expected)
        assert bad.expected_field in str(receipt), bad.name
        if expected == "rejected":
            folder = daemon.spool.root / "rejected" / bad.kind.value / bad.name
            assert bad.expected_field in (folder / "REASON.txt").read_text(), bad.name
            assert {file.name for file in folder.iterdir()} == {*bad.files, "REASON.txt"}
    assert len(MALFORMED) >= 60
    assert len(daemon.catalog("FoldsAccepted")) == 0


def test_a_rejected_bundle_that_is_mended_and_moved_back_is_accepted(daemon: RunningDaemon, tmp_path: Path):
    bundle = iris_bundle(tmp_path / "iris")
    manifest = bundle / "manifest.yaml"
    good = manifest.read_text()
    manifest.write_text(good.replace("[classifier]", "[clasifier]").replace("- classifier", "- clasifier"))
    daemon.drop(bundle, "datasets")
    daemon.wait_for_receipt("datasets", "iris", status="rejected")
    rejected = daemon.spool.root / "rejected/datasets/iris"

    (rejected / "manifest.yaml").write_text(good)
    rejected.rename(daemon.spool.root / "incoming/datasets/iris")

    daemon.wait_for_receipt("datasets", "iris", status="accepted")


def test_an_incomplete_bundle_is_reported_and_accepted_once_it_is_whole(daemon: RunningDaemon, tmp_path: Path):
    bundle = iris_bundle(tmp_path / "iris")
    data = (bundle / "iris.csv").read_bytes()
    (bundle / "iris.csv").unlink()
    daemon.drop(bundle, "datasets")
    receipt = daemon.wait_for_receipt("datasets", "iris", status="incomplete")
    assert "iris.csv" in str(receipt)

    (daemon.spool.root / "incoming/datasets/iris/iris.csv").write_bytes(data)

    daemon.wait_for_receipt("datasets", "iris", status="accepted")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ids": [1]}, "fold 1 is there already"),
        ({"submission": 25, "ids": [1]}, "is one of submission 24"),
        ({"code": "import os\n"}, "`force: submission, submission_fold` replaces them"),
        ({"dataset": "other"}, "to which submission 24 belongs"),
    ],
)
def test_what_contradicts_the_catalog_is_rejected(
    daemon: RunningDaemon, tmp_path: Path, change: dict[str, object], words: str
):
    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    daemon.drop(fold_bundle(tmp_path / "first", [1], submission=24), "folds")
    daemon.wait_for_receipt("folds", "first", status="accepted")
    values = {"ids": [2], "submission": 24, **change}

    daemon.drop(fold_bundle(tmp_path / "second", **values), "folds")  # type: ignore[arg-type]

    assert words in str(daemon.wait_for_receipt("folds", "second", status="rejected"))


def test_a_second_dataset_of_the_same_name_is_rejected_in_the_words_of_the_rest_api(
    daemon: RunningDaemon, tmp_path: Path
):
    daemon.drop(iris_bundle(tmp_path / "iris"), "datasets")
    daemon.wait_for_receipt("datasets", "iris", status="accepted")

    daemon.drop(iris_bundle(tmp_path / "again"), "datasets", name="again")

    receipt = daemon.wait_for_receipt("datasets", "again", status="rejected")
    assert "RawData with this name already exists" in str(receipt)


def test_a_dataset_that_cannot_be_split_says_why_and_so_do_its_folds(daemon: RunningDaemon, tmp_path: Path):
    bundle = iris_bundle(tmp_path / "iris", packed=False)
    text = (bundle / "iris.csv").read_text()
    (bundle / "iris.csv").write_text(text.replace("species", "kind", 1))
    daemon.drop(fold_bundle(tmp_path / "a", [1], submission=24), "folds")
    daemon.wait_for_receipt("folds", "a")

    daemon.drop(bundle, "datasets")

    result = daemon.wait_for_result("iris", "24", 1)
    assert (result["state"], result["stage"]) == ("ERROR", "data")
    assert "species" in result["message"]
    assert "kind" in result["message"]
    assert result["log_messages"].endswith("ERROR(split data)\n")
