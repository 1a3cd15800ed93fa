"""``datarun kit``: a RAMP kit's folder in, its dataset and folds in a spool out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from datarun_daemon.client import NoAnswer
from datarun_daemon.client.kit import Sent, folds_of_kit, kit_dataset, send_dataset, submission_files
from datarun_daemon.client.sending import check
from datarun_daemon.core.errors import Rejection
from datarun_daemon.core.model import BundleKind
from datarun_daemon.spool.layout import Spool
from tests.daemon_process import RunningDaemon
from tests.dropping import Desk
from tests.kits import ESTIMATOR, N_TRAIN, PROBLEM, write_kit
from tests.sshd import program, running_sshd

DATARUN = Path(sys.executable).parent / "datarun"
MINE = ("--submission", "mine")


def datarun(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(DATARUN), *map(str, arguments)], capture_output=True, text=True, timeout=110)


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    left = {"estimator.py": ESTIMATOR, "weights.csv": "1", "notes.ipynb": "x", "training_output/fold_0/x.npz": "x"}
    submissions = {"starting_kit": {"estimator.py": ESTIMATOR}, "mine": left}
    return write_kit(tmp_path / "kits" / "flowers", submissions=submissions, more={"data/.hidden": "x"})


def own_folds(kit: Path) -> list[list[list[int]]]:
    """What the kit's get_cv gives, asked as a person would."""
    program = (
        "import json, problem; X, y = problem.get_train_data()\n"
        "print(json.dumps([[t.tolist(), v.tolist()] for t, v in problem.get_cv(X, y)]))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=kit, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_a_kit_is_accepted_with_the_folds_of_its_own_cross_validation(daemon: RunningDaemon, kit: Path) -> None:
    done = datarun("kit", kit, "--submission", "starting_kit", "--submission", "mine", "--spool", daemon.spool.root)
    assert (0, "") == (done.returncode, done.stderr), done.stdout

    (dataset,) = daemon.catalog("DatasetAccepted")
    bundles = daemon.catalog("FoldsAccepted")
    assert "flowers" == dataset["name"]
    assert ["flowers-starting_kit", "flowers-mine"] == [bundle["submission"] for bundle in bundles]
    assert [["estimator.py"], ["estimator.py", "weights.csv"]] == [bundle["files"] for bundle in bundles]
    assert [f"flowers-mine-{k}" for k in range(2)] == [fold["id"] for fold in bundles[1]["folds"]]
    assert f"{daemon.spool.root}/outbox/flowers/flowers-mine/" in done.stdout
    stored = daemon.spool.root / dataset["folder"]
    for path in ("problem.py", "data/flowers/train.csv"):
        assert (kit / path).read_bytes() == (stored / path).read_bytes()
    assert not (stored / "submissions").exists()


def show(spool: Spool, **row: object) -> None:
    """Of a dataset flowers, what a daemon would show."""
    spool.datasets_file.write_text(json.dumps([{"name": "flowers", **row}]))


def digest_of_dataset(kit: Path, scratch: Path) -> str:
    """By which a daemon would know the kit's dataset."""
    desk = Desk(scratch)
    assert 0 == datarun("kit", kit, "--to", scratch / "out").returncode
    (scratch / "out/datasets/flowers").rename(desk.folder("flowers", BundleKind.DATASETS))
    return desk.claim().digest


@pytest.mark.parametrize("state", ["SPLIT", "WAITING"])
@pytest.mark.parametrize("same", [True, False])
def test_a_dataset_that_is_there_is_not_sent_again(kit: Path, tmp_path: Path, state: str, same: bool) -> None:
    spool = Spool.create(tmp_path / "spool")
    show(spool, state=state, dataset_sha256=digest_of_dataset(kit, tmp_path / "scratch") if same else "0" * 64)

    sent = send_dataset(spool.root, kit_dataset(kit, "flowers"), wait_seconds=0.1)

    assert Sent(is_new=False, is_same=same) == sent
    assert [] == [path for path in spool.incoming_of(BundleKind.DATASETS).iterdir() if path.is_dir()]


def test_a_dataset_that_could_not_be_split_is_sent_again(kit: Path, tmp_path: Path) -> None:
    spool = Spool.create(tmp_path / "spool")
    show(spool, state="FAILED", dataset_sha256="0" * 64)

    with pytest.raises(NoAnswer):
        send_dataset(spool.root, kit_dataset(kit, "flowers"), wait_seconds=0.1)

    assert (spool.incoming_of(BundleKind.DATASETS) / "flowers/data/flowers/train.csv").is_file()


def test_a_kit_goes_over_ssh_with_its_folders(kit: Path, tmp_path: Path) -> None:
    program("rsync")
    spool = Spool.create(tmp_path / "spool", shared=True)
    show(spool, state="FAILED", dataset_sha256="")
    dataset = kit_dataset(kit, "flowers")
    with running_sshd(tmp_path / "sshd") as sshd, pytest.raises(NoAnswer):
        send_dataset(sshd.url(spool.root), dataset, wait_seconds=0.1, ssh_options=sshd.options)

    sent = spool.incoming_of(BundleKind.DATASETS) / "flowers"
    assert [] == check(sent)
    assert (kit / "data/flowers/train.csv").read_bytes() == (sent / "data/flowers/train.csv").read_bytes()
    assert {0o775} == {folder.stat().st_mode & 0o777 for folder in (sent, sent / "data", sent / "data/flowers")}


def test_waiting_tells_each_folds_end_and_that_one_of_them_is_bad(daemon: RunningDaemon, kit: Path) -> None:
    (kit / "problem.py").write_text(PROBLEM.replace('"test.csv")', '"nothing.csv")'))

    done = datarun("kit", kit, "--spool", daemon.spool.root, "--wait")

    assert 1 == done.returncode, done.stdout + done.stderr
    for fold in range(2):
        place = daemon.result_folder("flowers", "flowers-starting_kit", f"flowers-starting_kit-{fold}")
        assert f"ERROR  {place}/" in done.stdout
        assert (place / "result.json").is_file()


def test_a_submission_that_is_there_wants_force(daemon: RunningDaemon, kit: Path) -> None:
    arguments = ("kit", kit, "--spool", daemon.spool.root)
    assert 0 == datarun(*arguments).returncode
    (kit / "submissions/starting_kit/estimator.py").write_text(ESTIMATOR.replace("random_state=0", "random_state=1"))

    refused = datarun(*arguments)

    assert (65, True) == (refused.returncode, "force" in refused.stderr)
    assert 0 == datarun(*arguments, "--force").returncode


def test_bundles_can_be_looked_at_instead_of_sent(kit: Path, tmp_path: Path) -> None:
    (kit / "data/more.csv").symlink_to(kit / "data/flowers/train.csv")
    done = datarun("kit", kit, "--to", tmp_path / "out", "--dataset", "plants", "--priority", "H", *MINE)
    assert 0 == done.returncode, done.stderr

    dataset, folds = tmp_path / "out/datasets/plants", tmp_path / "out/folds/plants-mine"
    assert ([], []) == (check(dataset), check(folds))
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_symlink()]
    manifest = yaml.safe_load((dataset / "manifest.yaml").read_text())
    assert ("plants", "ramp") == (manifest["name"], manifest["format"])
    data = {"data/flowers/train.csv", "data/flowers/test.csv", "data/more.csv"}
    assert {"problem.py", *data} == manifest["files"].keys()
    manifest = yaml.safe_load((folds / "manifest.yaml").read_text())
    assert ("H", 2) == (manifest["priority"], len(manifest["folds"]))

    again = datarun("kit", kit, "--to", tmp_path / "out", "--dataset", "plants")
    assert (1, True) == (again.returncode, "--to" in again.stderr)


def test_the_folds_are_those_of_the_kit(kit: Path) -> None:
    found = folds_of_kit(kit)

    assert own_folds(kit) == [[train_is, test_is] for train_is, test_is in found]
    assert N_TRAIN == len({*found[0][0], *found[0][1]})


def test_packages_of_the_kit_and_masks_of_rows_are_understood(tmp_path: Path) -> None:
    problem = PROBLEM.replace("import os\n", "import os\nfrom helping import EVEN\n").replace(
        "return StratifiedShuffleSplit(n_splits=2, test_size=0.25, random_state=57).split(X, y)",
        "print('noise'); return [(EVEN(len(X)), ~EVEN(len(X)))]",
    )
    helping = "import numpy as np\n\n\ndef EVEN(n):\n    return np.arange(n) % 2 == 0\n"
    kit = write_kit(tmp_path / "kit", problem=problem, more={"external_imports/helping/__init__.py": helping})

    assert [(list(range(0, N_TRAIN, 2)), list(range(1, N_TRAIN, 2)))] == folds_of_kit(kit)


def test_a_problem_that_fails_is_told_with_its_traceback(kit: Path, tmp_path: Path) -> None:
    (kit / "problem.py").write_text(PROBLEM.replace('"train.csv")', '"tarin.csv")'))

    done = datarun("kit", kit, "--to", tmp_path / "out")

    assert 65 == done.returncode
    assert "tarin.csv" in done.stderr
    assert "in get_train_data" in done.stderr
    assert "mistake of datarun" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_without_ramp_workflow_one_is_told_what_to_install(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(Rejection, match=r"datarun-daemon\[ramp\]"):
        folds_of_kit(kit)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--submission", "nobody"], "mine, starting_kit"),
        (["--submission", "../submissions/mine"], "other characters"),
        (["--dataset", "two words"], "--dataset"),
        (["--priority", "urgent"], "H or L"),
    ],
)
def test_a_wrong_wish_is_told_before_anything_is_written(
    kit: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    done = datarun("kit", kit, "--to", tmp_path / "out", *arguments)

    assert 1 == done.returncode
    assert words in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_kit_is_told_so(tmp_path: Path) -> None:
    done = datarun("kit", tmp_path, "--to", tmp_path / "out")

    assert (1, True) == (done.returncode, "no problem.py" in done.stderr)


def test_links_that_lead_in_a_circle_end(kit: Path) -> None:
    for name in ("again", "and_again"):
        (kit / "data" / name).symlink_to(kit / "data")

    with pytest.raises(Rejection, match="8 levels"):
        kit_dataset(kit, "flowers")


def test_a_link_to_nothing_is_refused(kit: Path) -> None:
    (kit / "data" / "gone.csv").symlink_to(kit / "nothing")

    with pytest.raises(Rejection, match=r"data/gone\.csv: found no regular file"):
        kit_dataset(kit, "flowers")


def test_a_submission_without_python_is_refused(kit: Path) -> None:
    (kit / "submissions/mine/estimator.py").unlink()

    with pytest.raises(Rejection, match="no Python file"):
        submission_files(kit, "mine")
