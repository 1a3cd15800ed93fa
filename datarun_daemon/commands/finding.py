"""What ``datarun doctor`` and ``datarun fsck`` found about one thing, as a value and as a line for a person."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rich.text import Text


class Verdict(StrEnum):
    OK = "OK"
    #: a daemon works, with less than there could be
    WARN = "warn"
    #: a daemon does not work, or not safely
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    about: str
    verdict: Verdict
    found: str
    #: what to do; empty where nothing is to be done
    advice: str = ""


_COLOURS = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}


def line(finding: Finding) -> Text:
    text = Text(f"{finding.verdict.value:<5}", _COLOURS[finding.verdict])
    text.append(f"{finding.about}: {finding.found}", "default")
    if finding.advice:
        text.append(f"\n     → {finding.advice}", "default")
    return text
