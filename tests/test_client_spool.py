"""The client library on a spool of this machine: against a real daemon, and against scripted answers."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datarun_daemon.client import (
    FoldRows,
    NameTaken,
    NoAnswer,
    NotDone,
    Receipt,
    Rejected,
    Spool,
    TransferFailed,
    UnknownFolds,
    progress,
    waiting,
)
from datarun_daemon.client.dropping import Dropping
from datarun_daemon.client.local import LocalTransport
from datarun_daemon.client.making import dataset_bundle, fold_bundles, manifest_bytes
from datarun_daemon.client.predictions import read_delivery
from datarun_daemon.core.errors import Problem, SpoolError
from datarun_daemon.core.model import BundleKind, FoldState
from datarun_daemon.spool import layout
from datarun_daemon.spool.indices import pack_indices, unpack
from datarun_daemon.spool.manifest import DatasetManifest, FoldsManifest, Manifest, parse_manifest
from datarun_daemon.spool.manifest_requests import PredictionsRequest
from tests.bundles import FOREST, iris_bundle, slow
from tests.conftest import StartDaemon
from tests.daemon_process import PATIENCE_SECONDS, RunningDaemon
from tests.scripted_daemon import Answer, ScriptedDaemon, accept

TRAIN, VALIDATION = np.arange(60), range(60, 75)


@pytest.fixture
def there(tmp_path: Path) -> layout.Spool:
    """A spool without a daemon."""
    return layout.Spool.create(tmp_path / "spool")


@pytest.fixture
def iris(tmp_path: Path) -> Path:
    return iris_bundle(tmp_path / "bundles" / "iris") / "iris.csv"


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    file = tmp_path / "classifier.py"
    file.write_text(FOREST)
    return file


def add_iris(spool: Spool, iris: Path, **more: Any) -> None:
    split = {"held_out_test": 0.5, "random_state": 42}
    spool.add_dataset(
        "iris", target_column="species", workflow_elements=["classifier"], data_file=iris, split=split, **more
    )


def submit(spool: Spool, ids: Sequence[int | str], *, submission: str = "team_a", **more: Any) -> None:
    spool.submit_folds(submission, [FoldRows(each, TRAIN, VALIDATION) for each in ids], **more)


def waiting_bundles(spool: layout.Spool) -> list[Path]:
    """Whatever lies in the incoming folders, hidden or not."""
    return [path for folder in spool.incoming_folders() for path in folder.iterdir() if path.name != layout.README]


def test_from_a_csv_to_arrays_of_predictions(daemon: RunningDaemon, iris: Path, classifier: Path) -> None:
    spool = Spool(daemon.spool.root)
    add_iris(spool, iris)

    submit(spool, [11, 12], dataset="iris", files=[classifier])
    submit(spool, ["team_a-x"], priority="H")
    states = spool.wait(timeout_seconds=PATIENCE_SECONDS)

    assert {11: "TESTED", 12: "TESTED", "team_a-x": "TESTED"} == states
    (dataset,) = spool.datasets()
    assert ("iris", 1, "SPLIT", 75) == (dataset["name"], dataset["id"], dataset["state"], dataset["n_train"])
    assert ["TESTED"] * 3 == [fold["state"] for fold in spool.folds()]
    assert (60, 15) == (spool.fold("11")["n_train_is"], spool.fold(11)["n_test_is"])

    of_result = np.load(daemon.result_folder("iris", "team_a", 11) / "full_train_predictions.npy")
    found = spool.predictions([11, "team_a-x"])

    assert [11, "team_a-x"] == list(found)
    first = found[11]
    assert first.full_train is not None
    assert first.test is not None
    np.testing.assert_array_equal(of_result, first.full_train)
    assert ((75, 3), (75, 3)) == (first.full_train.shape, first.test.shape)
    assert ("setosa", "versicolor", "virginica") == first.columns
    assert (list(TRAIN), "TESTED", True) == (first.result["train_is"], first.state, first.new)
    assert first.result["train_seconds"] > 0

    assert [12] == list(spool.new_predictions("iris"))
    assert {} == spool.new_predictions()
    assert not spool.predictions(12)[12].new
    assert [] == [path for path in (daemon.spool.outbox / "requests").iterdir() if path.is_dir()]


def test_what_is_only_a_manifest_is_taken_at_once(make_daemon: StartDaemon) -> None:
    spool = Spool(make_daemon(intake={"settle_seconds": 3600.0}).start().spool.root)

    spool.submit_fold("team_a", 1, [0], [1])
    spool.submit_folds("team_a", cv={"class": "KFold"})
    spool.set_priority([1], "H")

    assert "H" == spool.fold(1)["priority"]


def test_folds_that_a_splitter_makes_are_told_and_waited_for(
    daemon: RunningDaemon, iris: Path, classifier: Path
) -> None:
    spool = Spool(daemon.spool.root)
    cv = {"class": "ShuffleSplit", "n_splits": np.int64(3), "random_state": 0}

    early = spool.submit_folds("team_b", cv=cv, dataset="iris", files=[classifier])
    assert ((), "dataset iris (not here yet)") == (early.folds, early.waits_for)
    add_iris(spool, iris)
    states = spool.wait(early, timeout_seconds=PATIENCE_SECONDS)
    later = spool.submit_folds("team_c", cv=cv, dataset="iris", files=[classifier])

    assert {f"team_b-{number}": FoldState.TESTED for number in range(3)} == states
    assert ("team_c-0", "team_c-1", "team_c-2") == later.folds
    assert 6 == len(spool.wait(timeout_seconds=PATIENCE_SECONDS))
    with pytest.raises(Rejected, match="n_splits"):
        spool.submit_folds("team_d", cv={"class": "KFold", "n_splits": 1000}, dataset="iris", files=[classifier])


def test_what_the_daemon_rejects_is_told_with_its_reasons(daemon: RunningDaemon, iris: Path) -> None:
    spool = Spool(daemon.spool.root)
    add_iris(spool, iris)

    with pytest.raises(Rejected, match="dataset iris was rejected: 1 problem\n  name: found") as caught:
        add_iris(spool, iris)

    assert caught.value.receipt is not None
    assert "rejected" == caught.value.receipt.content["status"]
    assert ["name"] == [problem.field for problem in caught.value.problems]


def test_folds_are_cancelled_moved_ahead_and_run_again(make_daemon: StartDaemon, iris: Path, classifier: Path) -> None:
    spool = Spool(make_daemon(slots=1).start().spool.root)
    add_iris(spool, iris)
    classifier.write_text(slow(600))
    submit(spool, [1], submission="long", dataset="iris", files=[classifier])
    classifier.write_text(FOREST)
    submit(spool, [2, 3], dataset="iris", files=[classifier])

    spool.set_priority([3])
    spool.cancel(2)
    (receipt,) = spool.cancel(submission="long")

    assert BundleKind.REQUESTS is receipt.kind
    ended = spool.wait([1, "2", 3], timeout_seconds=PATIENCE_SECONDS)
    assert {1: "CANCELLED", "2": "CANCELLED", 3: "TESTED"} == ended
    assert "H" == spool.fold(3)["priority"]
    spool.rerun([2])
    assert {2: "TESTED"} == spool.wait(2, timeout_seconds=PATIENCE_SECONDS)


def test_a_dataset_is_split_later(daemon: RunningDaemon, tmp_path: Path) -> None:
    spool = Spool(str(daemon.spool.root))
    bundle = iris_bundle(tmp_path / "later" / "iris", split={}, packed=False)

    spool.add_bundle(shutil.make_archive(str(tmp_path / "iris"), "zip", bundle))
    spool.split("iris", 0.2)

    with pytest.raises(Rejected, match="held_out_test"):
        spool.split("iris")
    with pytest.raises(UnknownFolds) as caught:
        spool.predictions([1])
    assert ([1], {}) == (caught.value.folds, caught.value.found)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (np.arange(60) > 3, "numpy.flatnonzero"),
        (np.linspace(0, 1, 3), "float64"),
        (np.zeros((2, 2), dtype=int), "2 dimensions"),
        ([0.5], "integer"),
        ([True, False], "no row numbers"),
        ("0, 1", "str"),
        (7, "int"),
        ([], "at least one"),
        ([1, 1], "twice"),
        ([60], "train_is too"),
        (np.random.default_rng(0).permutation(3000), "train_is too"),
        ([-1], "counted from 0"),
        ([2**80], "too big"),
    ],
)
def test_rows_that_are_none_are_not_sent(there: layout.Spool, classifier: Path, rows: Any, words: str) -> None:
    folds = [FoldRows(1, [60], [61]), FoldRows(2, rows if words != "train_is too" else [60, 61], rows)]

    with pytest.raises(Rejected, match=words) as caught:
        Spool(there.root).submit_folds("team_a", folds, dataset="iris", files=[classifier])

    assert caught.value.receipt is None
    assert {"folds[1].train_is", "folds[1].test_is"} >= {problem.field for problem in caught.value.problems}
    assert [] == waiting_bundles(there)


def test_files_that_are_not_there_are_not_sent(there: layout.Spool, tmp_path: Path, classifier: Path) -> None:
    spool = Spool(there.root)
    (tmp_path / "other").mkdir()
    namesake = shutil.copy(classifier, tmp_path / "other")

    with pytest.raises(Rejected, match="data_file: found no such file"):
        spool.add_dataset("iris", target_column="species", workflow_elements="classifier", data_file="nothing.csv")
    with pytest.raises(Rejected, match=r"two files named classifier\.py"):
        submit(spool, [1], dataset="iris", files=[classifier, namesake])
    with pytest.raises(Rejected, match=r"workflow_elements.*\n.*split"):
        spool.add_dataset("iris", workflow_elements="clasifier", data_file=classifier, split={"held_out_test": 2})
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "manifest.yaml").write_text("submission: {id: 1}\ncv: {class: KFold}\n")
    with pytest.raises(Rejected, match="folds, by its manifest"):
        spool.add_bundle(folder, "datasets")

    assert [] == waiting_bundles(there)


@pytest.mark.parametrize(
    ("location", "hint"),
    [
        ("lab:/srv/spool", "ssh://lab/srv/spool"),
        ("http://lab/srv", "expected a path$"),
        ("nothing", "datarun init"),
        ("ssh://lab", "ssh://USER@HOST:PORT/PATH"),
        ("ssh://a:b@lab/srv", "a password is never used"),
    ],
)
def test_what_names_no_spool_is_told_with_what_would(location: str, hint: str) -> None:
    with pytest.raises(SpoolError, match=hint):
        Spool(location)


TEXT = st.sampled_from(["yes", "1e3", "12:30", "007", "null", "2024-01-01", "a: b # c", "é 😀", "'", '"', "*a", "~"])


@given(target=TEXT | st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=20))
@settings(deadline=None)
def test_any_text_means_itself_in_the_manifest(target: str) -> None:
    making = dataset_bundle(
        "iris",
        workflow_elements=("classifier",),
        target_column=target,
        data_file=None,
        extra_files=(),
        split={"held_out_test": np.float64(1e-5), "random_state": np.int64(3)},
        user=None,
    )
    making.manifest["data_file"] = "iris.csv"

    manifest = parse_manifest(BundleKind.DATASETS, manifest_bytes(making.manifest))

    assert isinstance(manifest, DatasetManifest)
    assert manifest.split is not None
    assert (target, 1e-5, 3) == (manifest.target_column, manifest.split.held_out_test, manifest.split.random_state)


@pytest.mark.parametrize("count", [2, 30, 3000])
@given(seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from([list, "int32", ">i8", "uint64"]))
@settings(deadline=None, max_examples=10)
def test_row_numbers_arrive_as_they_were(
    count: int, seed: int, dtype: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = np.random.default_rng(seed).permutation(99_999_999 // count * np.arange(count)).tolist()
    train, test = rows[1:], rows[:1]
    folder = tmp_path_factory.mktemp("rows")
    fold = FoldRows("f", train if dtype is list else np.array(train, dtype=dtype), test)
    (making,) = fold_bundles({"id": 1}, [fold], files=[], cv=None, priority="L", force=[], user=None)
    making.write(folder)

    manifest = parse_manifest(BundleKind.FOLDS, (folder / "manifest.yaml").read_bytes())
    assert isinstance(manifest, FoldsManifest)
    (packed,) = pack_indices(manifest.folds, folder, folder / "packed.npy")

    assert (train, test) == tuple(map(list, unpack(folder / "packed.npy", packed)))


def test_many_folds_go_in_several_bundles_and_the_first_brings_the_files(
    there: layout.Spool, classifier: Path
) -> None:
    rows = np.random.default_rng(0).permutation(3000)
    folds = [FoldRows(f"{number}-{'x' * 90}", rows[:700], rows[2500:2520]) for number in range(1500)]

    with ScriptedDaemon(there) as daemon:
        receipt = Spool(there.root).submit_folds(
            24, folds, dataset="iris", files=[classifier], force="submission, submission_fold"
        )

    manifests = [manifest for manifest in daemon.taken if isinstance(manifest, FoldsManifest)]
    assert [fold.id for fold in folds] == [fold.id for manifest in manifests for fold in manifest.folds]
    assert tuple(fold.id for fold in folds) == receipt.folds
    assert [("classifier.py",), (), ()] == [manifest.submission.files for manifest in manifests]
    assert ["iris", None, None] == [manifest.submission.dataset for manifest in manifests]
    assert all(manifest.digested for manifest in manifests)
    both, again = {"submission", "submission_fold"}, {"submission_fold"}
    assert [both, again, again] == [manifest.force for manifest in manifests]


def test_without_a_daemon_there_is_no_answer_and_the_bundle_stays(there: layout.Spool, iris: Path) -> None:
    spool = Spool(there.root)

    with pytest.raises(NoAnswer, match="does a daemon run there"):
        add_iris(spool, iris, wait_seconds=0.1, bundle_name="mine")
    with pytest.raises(NameTaken, match="mine is there already"):
        add_iris(spool, iris, wait_seconds=0.1, bundle_name="mine")

    assert [there.incoming_of(BundleKind.DATASETS) / "mine"] == waiting_bundles(there)


def test_an_incomplete_bundle_is_told_of(there: layout.Spool, iris: Path) -> None:
    with (
        ScriptedDaemon(there, lambda manifest: "the moon"),
        pytest.raises(NoAnswer, match=r"incomplete: .*the moon"),
    ):
        add_iris(Spool(there.root), iris, wait_seconds=2.0)


def test_an_older_receipt_of_the_same_name_is_no_answer(there: layout.Spool, iris: Path) -> None:
    answers: list[Answer] = [[Problem("name", "old", "new")], {"dataset": "iris", "id": 7}]
    spool = Spool(there.root)

    with ScriptedDaemon(there, lambda manifest: answers.pop(0)) as daemon:
        with pytest.raises(Rejected, match="found old"):
            add_iris(spool, iris, bundle_name="mine")
        daemon.names.clear()
        add_iris(spool, iris, bundle_name="mine")


def test_many_clients_at_once_get_their_own_receipts(there: layout.Spool) -> None:
    got: dict[str, tuple[object, ...]] = {}

    def client(number: int) -> None:
        receipt = Spool(there.root).submit_fold(f"s{number}", f"f{number}", [0], [1])
        got[f"s{number}"] = (receipt.content["submission"], *receipt.folds)

    with ScriptedDaemon(there):
        threads = [threading.Thread(target=client, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert {f"s{number}": (f"s{number}", f"f{number}") for number in range(20)} == got


def test_views_that_have_not_reached_the_receipt_are_not_believed(there: layout.Spool) -> None:
    spool = Spool(there.root)
    with ScriptedDaemon(there) as daemon:
        daemon.show({1: "TESTED"}, sequence=5)
        submit(spool, [1], force="submission_fold")

        with pytest.raises(NotDone) as caught:
            spool.wait(timeout_seconds=0.3)
        assert ([1], {1: None}) == (caught.value.left, caught.value.states)
        daemon.show({1: "RUNNING"}, sequence=10)
        with pytest.raises(NotDone, match="1 fold: 1"):
            spool.wait(timeout_seconds=0.3)
        daemon.show({1: "ERROR"}, sequence=11)
        assert {1: FoldState.ERROR} == spool.wait(timeout_seconds=PATIENCE_SECONDS)


def test_waiting_goes_on_until_all_have_ended(there: layout.Spool) -> None:
    spool = Spool(there.root)
    with ScriptedDaemon(there) as daemon:
        submit(spool, [1, "b"])
        done: list[Any] = []
        waiter = threading.Thread(target=lambda: done.append(spool.wait(timeout_seconds=PATIENCE_SECONDS)))
        waiter.start()
        for states in ({1: "TODO"}, {1: "TESTED", "b": "VALIDATED"}, {1: "TESTED", "b": "CANCELLED"}):
            assert not done
            daemon.show(states)
        waiter.join()

    assert [{1: "TESTED", "b": "CANCELLED"}] == done


def test_a_fold_that_nobody_accepted_is_not_waited_for(there: layout.Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_UNKNOWN_SECONDS", 0.2)
    with ScriptedDaemon(there) as daemon:
        daemon.show({1: "RUNNING"})
        with pytest.raises(UnknownFolds, match="1 fold: tpyo") as caught:
            Spool(there.root).wait([1, "tpyo"])

    assert ["tpyo"] == caught.value.folds


def test_what_is_read_is_not_older_than_what_was_sent(there: layout.Spool) -> None:
    spool = Spool(there.root)
    with ScriptedDaemon(there) as daemon:
        daemon.show({}, sequence=5)
        submit(spool, [1])
        later = threading.Timer(0.3, daemon.show, [{1: "TODO"}], {"sequence": 10})
        later.start()

        assert [{"id": 1, "state": "TODO", "new": False}] == spool.folds()
        for unknown in (2, "../../catalog"):
            with pytest.raises(UnknownFolds):
                spool.fold(unknown)


def test_progress_is_shown_on_a_terminal_only(
    there: layout.Spool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with ScriptedDaemon(there) as daemon:
        daemon.show({1: "TESTED", 2: "ERROR"})
        Spool(there.root).wait([1, 2])
        monkeypatch.setenv("FORCE_COLOR", "1")
        Spool(there.root).wait([1, 2], progress=False)
        quiet = capsys.readouterr()
        Spool(there.root).wait([1, 2])

    assert ("", "") == quiet
    assert "2/2" in capsys.readouterr().err
    states = {"1": None, "2": FoldState.TESTED, "3": FoldState.RUNNING, "4": FoldState.TESTED}
    assert "2 tested, 1 todo, 1 running" == progress.in_words(states)


def row(fold: int | str, state: str = "RUNNING") -> dict[str, Any]:
    return {"id": fold, "submission": 1, "dataset": "iris", "state": state, "new": False, "folder": None}


def test_predictions_of_many_folds_are_asked_for_in_portions(there: layout.Spool) -> None:
    def answer(manifest: Manifest) -> Answer:
        assert isinstance(manifest, PredictionsRequest)
        known = [row(int(fold)) for fold in manifest.folds if fold != "999"]
        unknown: list[int | str] = [999] if "999" in manifest.folds else []
        daemon.deliver(daemon.names[-1], known, unknown)
        return {"folds": list(manifest.folds)}

    with ScriptedDaemon(there, answer) as daemon, pytest.raises(UnknownFolds, match="ids: 999") as caught:
        Spool(there.root).predictions(range(2500))

    assert [999] == caught.value.folds
    assert set(range(2500)) - {999} == caught.value.found.keys()
    first = caught.value.found[0]
    assert ("RUNNING", None, False) == (first.state, first.test, first.ended)
    assert 3 == len(daemon.taken)


def test_predictions_that_cannot_be_read_stay_where_they_are(there: layout.Spool) -> None:
    def answer(manifest: Manifest) -> Answer:
        daemon.deliver(daemon.names[-1], [row(1, "TESTED") | {"folder": "1"}], [])
        return {"folds": [1]}

    with ScriptedDaemon(there, answer) as daemon, pytest.raises(TransferFailed, match="cannot be read"):
        Spool(there.root).predictions(1)

    assert there.outbox_request(daemon.names[0]).is_dir()


class NotOurs(LocalTransport):
    """A spool whose outbox we may only read."""

    def remove(self, folder: Path) -> None:
        raise TransferFailed(f"{folder} could not be removed (Permission denied)")


def test_predictions_that_may_not_be_removed_are_handed_over_with_a_warning(there: layout.Spool) -> None:
    ScriptedDaemon(there).deliver("mine", [row(1)], [])
    receipt = Receipt(BundleKind.REQUESTS, "mine.yaml", {})

    with (
        pytest.warns(RuntimeWarning, match=r"Permission denied.*it stays there"),
        Dropping(NotOurs(there.root)).delivery(receipt, wait_seconds=1.0) as folder,
    ):
        (found,), _ = read_delivery(folder)

    assert (1, "RUNNING") == (found.fold, found.state)


def test_predictions_that_never_come_are_told_of(there: layout.Spool) -> None:
    with ScriptedDaemon(there, accept), pytest.raises(NoAnswer, match=r"outbox/requests/client-"):
        Spool(there.root).new_predictions(wait_seconds=0.5)


def test_requests_say_on_whose_behalf_they_come(there: layout.Spool) -> None:
    with ScriptedDaemon(there) as daemon:
        spool = Spool(there.root, user="alice")
        spool.cancel([1])
        spool.rerun(submission=1, user="bob")
        spool.submit_fold(1, 2, [0], [1])

    assert ["alice", "bob", "alice"] == [manifest.user for manifest in daemon.taken]
    with pytest.raises(TypeError, match="either folds or submission"):
        spool.cancel()
