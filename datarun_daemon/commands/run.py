"""``datarun run``: the daemon, in the foreground."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datarun_daemon import daemon
from datarun_daemon.commands.choosing import chosen_config


def run(config: Path | None, spool: Path | None, settings: Sequence[str]) -> int:
    return daemon.run(chosen_config(config, spool, settings))
