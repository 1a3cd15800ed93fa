"""The units are what systemd takes, and the daemon's talk with it is what sd_notify(3) says."""

from __future__ import annotations

import configparser
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from datarun_daemon.core import errors
from datarun_daemon.systemd_notify import Notifier

UNITS = Path(__file__).parents[1] / "systemd"
UNIT = UNITS / "datarun.service"
DATARUN = Path(sys.executable).parent / "datarun"
#: capabilities(7)
CAP_DAC_OVERRIDE = 1 << 1


def needs(program: str) -> str:
    """Its path; where CI runs, a missing program is a failure, for .ci/run installs it."""
    path = shutil.which(program)
    if path is None and not os.environ.get("CI"):
        pytest.skip(f"{program} is not here")
    assert path is not None, f"{program} is missing"
    return path


def unit() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return parser


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    installed = tmp_path / "datarun.service"
    installed.write_text(UNIT.read_text().replace("/opt/datarun/bin/datarun", str(DATARUN)))

    done = subprocess.run(
        [needs("systemd-analyze"), "verify", "--recursive-errors=no", str(installed)], capture_output=True, text=True
    )

    assert (0, "") == (done.returncode, done.stdout + done.stderr)


def test_systemd_would_not_accept_a_misspelt_unit(tmp_path: Path) -> None:
    wrong = tmp_path / "datarun.service"
    text = UNIT.read_text().replace("Type=notify", "Type=notfy")
    wrong.write_text(text.replace("/opt/datarun/bin/datarun", "/bin/no"))

    done = subprocess.run(
        [needs("systemd-analyze"), "verify", "--recursive-errors=no", str(wrong)], capture_output=True, text=True
    )

    assert done.returncode != 0


def test_the_user_and_the_folders_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    users = [needs("systemd-sysusers"), f"--root={tmp_path}", str(UNITS / "datarun.sysusers")]
    folders = [needs("systemd-tmpfiles"), f"--root={tmp_path}", "--create", str(UNITS / "datarun.tmpfiles")]
    if os.geteuid() != 0:
        pytest.skip("only root may make users")

    subprocess.run(users, check=True)
    subprocess.run(folders, check=True)

    assert "datarun" in (tmp_path / "etc/passwd").read_text()
    assert (tmp_path / "var/lib/datarun").is_dir()


def test_an_error_that_a_restart_cannot_mend_is_not_restarted() -> None:
    held = {int(number) for number in unit()["Service"]["RestartPreventExitStatus"].split()}

    assert held == {
        error.exit_code
        for error in (errors.CatalogCorrupt, errors.SpoolError, errors.SpoolBusy, errors.ConfigError)
    }


def test_folds_outlive_the_daemon_and_may_use_landlock() -> None:
    service = unit()["Service"]

    assert (service["KillMode"], service["OOMPolicy"]) == ("process", "continue")
    assert "landlock_restrict_self" in service["SystemCallFilter"]
    assert "user" in service["RestrictNamespaces"].split()


class Manager:
    """The socket of a service manager."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.settimeout(5)

    def received(self) -> list[str]:
        return self._socket.recv(4096).decode().splitlines()


def test_the_manager_is_told_over_a_path(tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "OTHER": "1"}

    Notifier.from_environment(environ).ready("3 folds\nREADY=0")

    assert manager.received() == ["READY=1", "STATUS=3 folds READY=0"]
    assert environ == {"OTHER": "1"}


def test_the_manager_is_told_over_an_abstract_socket_and_the_watchdog_is_fed(tmp_path: Path) -> None:
    name = f"datarun-test-{os.getpid()}"
    manager = Manager(f"\0{name}")
    environ = {"NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid())}

    notifier = Notifier.from_environment(environ)
    notifier.alive()

    assert (2.0, ["WATCHDOG=1"]) == (notifier.watchdog_seconds, manager.received())


def test_a_reload_carries_its_time(tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))

    Notifier.from_environment({"NOTIFY_SOCKET": str(tmp_path / "notify")}).reloading()

    reloading, monotonic = manager.received()
    assert reloading == "RELOADING=1"
    assert int(monotonic.removeprefix("MONOTONIC_USEC=")) > 0


def test_a_watchdog_for_another_process_is_not_ours() -> None:
    environ = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}

    assert Notifier.from_environment(environ).watchdog_seconds is None


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_without_a_manager_nothing_happens(environ: dict[str, str]) -> None:
    notifier = Notifier.from_environment(environ)

    notifier.ready()
    notifier.alive()
    notifier.stopping()


def test_capabilities_of_the_daemon_do_not_reach_what_it_executes(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can hand out capabilities")
    # a file alone, since another user can hardly read this checkout
    module = tmp_path / "systemd_notify.py"
    shutil.copy(Path(__file__).parents[1] / "datarun_daemon" / "systemd_notify.py", module)
    for path in (tmp_path, *list(tmp_path.parents)[:2]):
        path.chmod(0o755)
    program = """
import subprocess, sys
from systemd_notify import keep_capabilities_to_ourselves
keep_capabilities_to_ourselves()
own = open("/proc/self/status").read()
child = subprocess.run(["/bin/cat", "/proc/self/status"], capture_output=True, text=True).stdout
print([int(text.split("CapEff:")[1].split()[0], 16) for text in (own, child)])
"""
    command = [
        needs("setpriv"), "--reuid=nobody", "--regid=nogroup", "--clear-groups",
        "--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override", "/usr/bin/python3", "-c", program,
    ]  # fmt: skip

    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})

    assert done.stdout == f"[{CAP_DAC_OVERRIDE}, 0]\n", done.stderr
