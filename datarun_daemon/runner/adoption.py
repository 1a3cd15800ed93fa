"""Folds that outlived the link to whoever started them: found and watched by what lies in their run folders."""

from __future__ import annotations

from pathlib import Path

from datarun_daemon import disk

from .protocol import Adoption


def look_at(run_folder: Path) -> Adoption:
    """What became of an attempt: a held lock means alive, else result.json means finished."""
    if disk.is_locked(run_folder / "lock"):
        return Adoption.ALIVE
    # In this order: a lock is given back only once the result is complete.
    if (run_folder / "out" / "result.json").exists():
        return Adoption.FINISHED
    return Adoption.LOST


def ask_to_stop(run_folder: Path, *, reason: str) -> None:
    """Its keeper sees it within about a second, and ends the fold as cancelled."""
    disk.write_atomically(run_folder / "stop", reason.encode(), durable=False)
