"""A real daemon on a real spool, and what a client does with it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil
import yaml

from datarun_daemon.spool.layout import Spool

Value = TypeVar("Value")
#: generous, for a loaded machine: it is only waited for when something is wrong
PATIENCE_SECONDS = 60.0


def wait_for(condition: Callable[[], Value], what: str, *, seconds: float = PATIENCE_SECONDS) -> Value:
    """The condition's first true value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(0.01)
    return value


class RunningDaemon:
    """``datarun run`` on a spool below ``folder``."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.spool = Spool.create(folder / "spool")
        self.config = folder / "config.yaml"
        self.configure(**options)
        self._process: subprocess.Popen[bytes] | None = None
        self.log = folder / "daemon.log"

    def configure(self, **options: Any) -> None:
        """Options beside what makes tests quick; groups are merged."""
        values: dict[str, Any] = {
            "spool": str(self.spool.root),
            "slots": 2,
            "status_seconds": 0.2,
            "intake": {"settle_seconds": 0.3, "incomplete_after_seconds": 1.0, "scan_seconds": 0.3},
            "log": {"format": "json"},
        }
        for name, value in options.items():
            values[name] = {**values.get(name, {}), **value} if isinstance(value, dict) else value
        self.config.write_text(yaml.safe_dump(values))

    def start(self, *, under: Sequence[str] = ()) -> RunningDaemon:
        """Running and ready; ``under`` is a command (strace, …) that runs it."""
        command = [*under, sys.executable, "-m", "datarun_daemon", "run", "--config", str(self.config)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        starts = self.events("daemon_started")
        wait_for(lambda: len(self.events("daemon_started")) > len(starts) or self.has_ended, "the start")
        assert not self.has_ended, self.log.read_text()
        return self

    @property
    def process(self) -> psutil.Process:
        assert self._process is not None
        return psutil.Process(self._process.pid)

    @property
    def has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self, *, number: signal.Signals = signal.SIGTERM) -> int:
        """The exit status after the signal."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(PATIENCE_SECONDS)

    def end(self) -> None:
        """Nothing of it runs any more, whatever a test did."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for process in self.leftovers():
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended by itself meanwhile
                process.kill()

    def leftovers(self) -> list[psutil.Process]:
        """Every process that has something of this spool in its command line, folder or open files."""
        found = []
        for process in psutil.process_iter():
            try:
                touches = [process.cwd(), *process.cmdline(), *(file.path for file in process.open_files())]
            except psutil.Error:
                continue
            if process.pid != os.getpid() and any(text.startswith(str(self.folder)) for text in touches):
                found.append(process)
        return found

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log's lines of one event."""
        if not self.log.exists():
            return []
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def catalog(self, event: str) -> list[dict[str, Any]]:
        """What the catalog's lines of one event say."""
        lines = self.spool.catalog_file.read_text().splitlines(keepends=True)
        whole = [json.loads(line) for line in lines if line.endswith("\n")]
        return [line["data"] for line in whole if line["event"] == event]

    def drop(self, bundle: Path, kind: str, *, name: str | None = None, owner: int | None = None) -> None:
        """As a careful client does: copied under a dot-name, then renamed."""
        name = name or bundle.name
        incoming = self.spool.root / "incoming" / kind
        hidden = incoming / f".{name}"
        if bundle.is_dir():
            shutil.copytree(bundle, hidden)
        else:
            shutil.copy(bundle, hidden)
        if owner is not None:
            for path in (hidden, *hidden.rglob("*")):
                os.chown(path, owner, -1)
        hidden.rename(incoming / name)

    def receipt(self, kind: str, name: str) -> dict[str, Any] | None:
        path = self.spool.root / "receipts" / kind / f"{name}.yaml"
        return yaml.safe_load(path.read_text()) if path.exists() else None

    def wait_for_receipt(self, kind: str, name: str, *, status: str | None = None) -> dict[str, Any]:
        def arrived() -> dict[str, Any] | None:
            receipt = self.receipt(kind, name)
            return receipt if receipt and status in (None, receipt["status"]) else None

        return wait_for(arrived, f"the receipt of {kind}/{name} ({status})")

    def result_folder(self, dataset: str, submission: str, fold: str | int) -> Path:
        return self.spool.root / "outbox" / dataset / submission / str(fold)

    def wait_for_result(
        self, dataset: str, submission: str, fold: str | int, *, seconds: float = PATIENCE_SECONDS
    ) -> dict[str, Any]:
        """The content of result.json, once it is there."""
        path = self.result_folder(dataset, submission, fold) / "result.json"
        wait_for(path.exists, f"{path}", seconds=seconds)
        return json.loads(path.read_text())  # type: ignore[no-any-return]

    def wait_until_running(self, number: int = 1) -> None:
        """So many folds are in the hands of their keepers."""
        wait_for(lambda: len(list(self.spool.runs.glob("*/*/scratch"))) >= number, f"{number} folds to run")

    def overview(self) -> dict[str, Any]:
        path = self.spool.overview_file
        return json.loads(path.read_text()) if path.exists() else {}
