"""``datarun doctor``: can a daemon work here, what limits it, and what to do about it."""

from __future__ import annotations

import json as json_text
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from datarun_daemon.commands.choosing import chosen_config
from datarun_daemon.commands.finding import Finding, Verdict, line
from datarun_daemon.commands.probing_machine import probe_machine
from datarun_daemon.commands.probing_spool import probe_spool
from datarun_daemon.config import Config
from datarun_daemon.core.errors import ConfigError


def doctor(spool: Path | None, config: Path | None, *, json: bool) -> int:
    """1 if anything fails. To be run as the user that runs the daemon."""
    findings = list(_findings(spool, config))
    if json:
        print(json_text.dumps({"findings": [asdict(finding) for finding in findings]}))
    else:
        console = Console(highlight=False, soft_wrap=True)
        for finding in findings:
            console.print(line(finding))
    return 1 if any(finding.verdict is Verdict.FAIL for finding in findings) else 0


def _findings(spool: Path | None, config: Path | None) -> Iterator[Finding]:
    try:
        chosen = chosen_config(config, spool)
    except ConfigError as error:
        yield Finding("configuration", Verdict.FAIL, str(error), "mend the options named")
        chosen = Config(spool=spool.absolute() if spool else Path.cwd() / "spool")
    else:
        yield Finding("configuration", Verdict.OK, str(chosen.source or "none: all options at their defaults"))
    yield from probe_spool(chosen)
    yield from probe_machine(chosen)
