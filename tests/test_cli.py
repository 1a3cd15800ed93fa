"""The command line as it is installed: what it prints, and its exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from datarun_daemon import disk
from datarun_daemon.spool.layout import Spool
from tests.daemon_process import RunningDaemon

DATARUN = Path(sys.executable).parent / "datarun"
HEAD = "name: iris\ntarget_column: b\nworkflow_elements: [classifier]\n"


def datarun(*arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(DATARUN), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=90)


def answer(*arguments: object, folder: Path | None = None) -> Any:
    return json.loads(datarun(*arguments, "--json", folder=folder).stdout)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.create(tmp_path / "spool")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "iris"
    folder.mkdir()
    (folder / "manifest.yaml").write_text(HEAD + "data_file: iris.csv\n")
    (folder / "iris.csv").write_text("a,b\n" + "".join(f"{i},{i % 2}\n" for i in range(40)))
    return folder


def test_help_names_the_commands_and_the_exit_statuses() -> None:
    done = datarun("--help")

    assert done.returncode == 0
    commands = ("init", "run", "pack", "check", "submit", "kit", "status", "doctor", "fsck", "demo")
    for word in (*commands, "Exit status", "78"):
        assert word in done.stdout


def test_help_imports_neither_numpy_nor_rich_nor_pydantic() -> None:
    program = (
        "import sys, datarun_daemon.cli as cli\ntry: cli.app(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'numpy', 'rich.console', 'pydantic', 'structlog'} & sys.modules.keys()))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_a_wrong_command_line_ends_with_2() -> None:
    assert datarun("initialise").returncode == 2


def test_init_makes_a_spool_and_keeps_what_is_in_one(tmp_path: Path) -> None:
    datarun("init", tmp_path / "spool")
    (tmp_path / "spool/catalog/catalog.jsonl").write_text("kept")

    done = datarun("init", tmp_path / "spool")

    assert done.returncode == 0
    assert "was a spool already" in done.stdout
    assert (tmp_path / "spool/catalog/catalog.jsonl").read_text() == "kept"
    Spool.open(tmp_path / "spool")


def test_run_on_a_folder_that_is_no_spool_ends_with_72_and_says_what_to_do(tmp_path: Path) -> None:
    done = datarun("run", "--spool", tmp_path)

    assert done.returncode == 72
    assert "datarun init" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_configuration_ends_with_78_and_every_mistake(tmp_path: Path, spool: Spool) -> None:
    (tmp_path / "config.yaml").write_text("slots: many\nlog: {level: loud}\n")

    done = datarun("run", "--spool", spool.root, folder=tmp_path)

    assert done.returncode == 78
    assert "slots: found 'many'" in done.stderr
    assert "log.level: found 'loud'" in done.stderr


def test_an_option_of_the_command_line_that_is_wrong_ends_with_78(spool: Spool) -> None:
    done = datarun("run", "--spool", spool.root, "--set", "intake.scan_seconds=never")

    assert (78, True) == (done.returncode, "intake.scan_seconds" in done.stderr)


def test_a_second_daemon_ends_with_75_naming_the_first(daemon: RunningDaemon) -> None:
    done = datarun("run", "--spool", daemon.spool.root)

    assert done.returncode == 75
    assert f"pid {daemon.process.pid}" in done.stderr


def test_check_tells_every_problem_and_ends_with_1(bundle: Path) -> None:
    (bundle / "manifest.yaml").write_text(HEAD.replace("classifier", "clasifier") + "data_file: ../x.csv\n")

    done = datarun("check", bundle)

    assert done.returncode == 1
    assert "workflow_elements" in done.stdout
    assert "data_file" in done.stdout


def test_check_of_a_good_bundle_ends_with_0(bundle: Path) -> None:
    assert datarun("check", bundle).returncode == 0
    assert answer("check", bundle) == {"bundle": str(bundle), "problems": []}


def test_check_of_what_is_not_there_says_so(tmp_path: Path) -> None:
    done = datarun("check", tmp_path / "nothing")

    assert (1, "") == (done.returncode, done.stderr)
    assert "No such file" in done.stdout


def test_pack_then_submit_then_a_taken_name_ends_with_73(bundle: Path, spool: Spool) -> None:
    assert datarun("pack", bundle).returncode == 0
    assert datarun("submit", bundle, "--spool", spool.root).returncode == 0

    done = datarun("submit", bundle, "--spool", spool.root)

    assert done.returncode == 73
    assert "is there already" in done.stderr


def test_a_wrong_bundle_is_not_sent(bundle: Path, spool: Spool) -> None:
    (bundle / "iris.csv").unlink()

    done = datarun("submit", bundle, "--spool", spool.root)

    assert (1, True) == (done.returncode, "It was not sent" in done.stdout)
    assert not (spool.incoming / "datasets" / "iris").exists()


def test_waiting_for_a_receipt_without_a_daemon_ends_with_75(bundle: Path, spool: Spool) -> None:
    done = datarun("submit", bundle, "--spool", spool.root, "--wait", "--timeout", 0.3)

    assert (75, True) == (done.returncode, "does a daemon run" in done.stderr)


def test_submit_waits_for_accepted_and_status_shows_the_dataset(bundle: Path, daemon: RunningDaemon) -> None:
    assert answer("submit", bundle, "--spool", daemon.spool.root, "--wait")["status"] == "accepted"

    again = datarun("submit", bundle, "--spool", daemon.spool.root, "--wait")
    assert again.returncode == 1
    assert "iris" in again.stdout

    told = answer("status", "--spool", daemon.spool.root)
    assert told["alive"] is True
    assert "serves" in datarun("status", "--spool", daemon.spool.root).stdout


def test_status_of_a_spool_that_never_had_a_daemon_says_so(spool: Spool) -> None:
    assert "no daemon has served" in datarun("status", "--spool", spool.root).stdout
    assert answer("status", "--spool", spool.root) == {"spool": str(spool.root), "alive": False, "overview": None}


def test_the_spool_may_come_from_a_configuration(tmp_path: Path, spool: Spool) -> None:
    (tmp_path / "config.yaml").write_text("spool: spool\n")

    assert answer("status", folder=tmp_path)["spool"] == str(spool.root)


def test_names_that_clients_chose_cannot_steer_a_terminal(spool: Spool) -> None:
    zero = {"H": 0, "L": 0}
    overview = {
        "written_at": "2026-01-01T00:00:00.000000Z",
        "daemon": {"version": "1", "host": "h", "started_at": "2026-01-01T00:00:00.000000Z"},
        "slots": {"total": 2, "running": zero}, "memory": {"budget_bytes": 1, "used_bytes": 0},
        "counts": {"TESTED": 0, "ERROR": 0, "CANCELLED": 0}, "outbox": 0, "running": [], "last_results": [],
        "datasets": [], "queue": {"length": 0, "folds": []}, "last_rejected": [],
        "arriving": [{"kind": "folds", "name": "a\x1b[31m[red]", "since": "2026-01-01T00:00:00Z", "waits_for": "x"}],
    }  # fmt: skip
    disk.write_atomically(spool.overview_file, json.dumps(overview).encode())

    done = datarun("status", "--spool", spool.root)

    assert "\x1b" not in done.stdout
    assert "[red]" in done.stdout


def test_doctor_finds_nothing_that_fails_on_a_new_spool(spool: Spool) -> None:
    done = datarun("doctor", "--spool", spool.root)

    assert done.returncode == 0, done.stdout
    verdicts = {finding["about"]: finding["verdict"] for finding in answer("doctor", "--spool", spool.root)["findings"]}
    assert {"OK"} == {verdicts[about] for about in ("spool", "flock", "fsync and rename", "environment default")}
    assert not [path for path in spool.root.iterdir() if "doctor" in path.name]


def test_doctor_of_a_folder_that_is_no_spool_fails_with_advice(tmp_path: Path) -> None:
    done = datarun("doctor", "--spool", tmp_path)

    assert done.returncode == 1
    assert f"datarun init {tmp_path}" in done.stdout


def test_doctor_warns_of_labels_that_others_may_read(spool: Spool) -> None:
    spool.store.chmod(0o755)

    found = {finding["about"]: finding["verdict"] for finding in answer("doctor", "--spool", spool.root)["findings"]}

    assert found["folder store"] == "warn"


def test_fsck_of_an_empty_spool_finds_nothing_missing(daemon: RunningDaemon) -> None:
    daemon.stop()

    done = datarun("fsck", "--spool", daemon.spool.root)

    assert (0, False) == (done.returncode, "FAIL" in done.stdout)


def test_the_demonstration_ends_well_and_leaves_a_spool_to_look_at(tmp_path: Path) -> None:
    done = datarun("demo", "--spool", tmp_path / "demo")

    assert done.returncode == 0, done.stdout
    assert "all as it should be" in done.stdout
    assert list((tmp_path / "demo/outbox").glob("iris/*/*/test_predictions.csv"))
    assert not disk.is_locked(Spool(tmp_path / "demo").lock_file)


def test_the_demonstration_refuses_a_spool_that_was_used(tmp_path: Path) -> None:
    used = Spool.create(tmp_path / "spool")
    used.catalog_file.write_text("")

    done = datarun("demo", "--spool", used.root)

    assert (1, True) == (done.returncode, "used already" in done.stderr)
