"""Fixtures of all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.daemon_process import RunningDaemon


class StartDaemon(Protocol):
    def __call__(self, **options: Any) -> RunningDaemon: ...


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[StartDaemon]:
    """Makes daemons (not started yet) that are ended, with all they started, after the test."""
    made: list[RunningDaemon] = []

    def make(**options: Any) -> RunningDaemon:
        folder = tmp_path / f"daemon{len(made)}"
        folder.mkdir()
        made.append(RunningDaemon(folder, **options))
        return made[-1]

    yield make
    for daemon in made:
        daemon.end()


@pytest.fixture
def daemon(make_daemon: StartDaemon) -> RunningDaemon:
    """A running daemon with two slots."""
    return make_daemon().start()
