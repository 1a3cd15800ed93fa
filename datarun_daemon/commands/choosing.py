"""Which configuration and which spool a command is about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datarun_daemon.config import Config, load_config
from datarun_daemon.core.errors import ConfigError
from datarun_daemon.spool.layout import Spool
from datarun_daemon.spool.yaml_reading import read_yaml


def chosen_config(config: Path | None, spool: Path | None, settings: Sequence[str] = ()) -> Config:
    """The configuration with what the command line says instead."""
    overrides: dict[str, object] = dict(map(_setting, settings))
    if spool is not None:
        overrides["spool"] = str(spool)
    return load_config(config, overrides)


def chosen_spool(spool: Path | None, config: Path | None) -> Spool:
    """Raises SpoolError: it is none."""
    return Spool.open(spool.absolute() if spool is not None else load_config(config).spool)


def _setting(text: str) -> tuple[str, object]:
    option, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text}: expected OPTION=VALUE, as in intake.scan_seconds=1")
    return option, read_yaml(value.encode(), file_name=option)
