"""A daemon of its own for a measurement, as a client sees it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from datarun_daemon.spool.layout import Spool

_PATIENCE_SECONDS = 300.0


class LiveDaemon:
    """``datarun run`` on a new spool; stopped at the end of the with block."""

    def __init__(self, folder: Path, *, slots: int = 2, settings: tuple[str, ...] = ()) -> None:
        self.spool = Spool.create(folder / "spool")
        options = [f"slots={slots}", "log.level=warning", *settings]
        command = [sys.executable, "-m", "datarun_daemon", "run", "--spool", str(self.spool.root)]
        command += [f"--set={option}" for option in options]
        self.process = subprocess.Popen(command, cwd=folder)

    def __enter__(self) -> LiveDaemon:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def drop(self, bundle: Path, kind: str, name: str) -> None:
        """By rename, from the same file system: the moment of the rename is the moment of arrival."""
        bundle.rename(self.spool.incoming / kind / name)

    def result(self, dataset: str, submission: str, fold: str) -> Path:
        return self.spool.outbox / dataset / submission / fold / "result.json"

    def wait_for(self, paths: list[Path], *, poll_seconds: float = 0.001) -> None:
        """All of these are there."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        for path in paths:
            while not path.exists():
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{path} did not appear in {_PATIENCE_SECONDS} s")
                time.sleep(poll_seconds)

    def check_tested(self, paths: list[Path]) -> None:
        for path in paths:
            result = json.loads(path.read_text())
            if result["state"] != "TESTED":
                raise RuntimeError(f"{path}: {result['log_messages']}")
