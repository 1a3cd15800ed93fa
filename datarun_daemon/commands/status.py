"""``datarun status``: what the daemon last wrote into ``status/overview.json``, and whether it runs at all.

Reads only; what clients chose (names, messages) is shown with its control characters escaped.
"""

from __future__ import annotations

import json as json_text
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from datarun_daemon import disk
from datarun_daemon.commands.choosing import chosen_spool
from datarun_daemon.spool.layout import Spool
from datarun_daemon.spool.names import printable

_ROWS = 20
_PIPE_COLUMNS = 200
_COLOURS = {"TESTED": "green", "ERROR": "red", "CANCELLED": "yellow", "RUNNING": "cyan"}


def status(spool: Path | None, config: Path | None, *, json: bool) -> int:
    there = chosen_spool(spool, config)
    overview = read_overview(there)
    alive = is_served(there)
    if json:
        print(json_text.dumps({"spool": str(there.root), "alive": alive, "overview": overview}))
        return 0
    # what reads a pipe has no width that rich could know
    width = None if sys.stdout.isatty() else _PIPE_COLUMNS
    Console(highlight=False, width=width).print(shown(there, overview, alive))
    return 0


def read_overview(spool: Spool) -> dict[str, Any] | None:
    """What the daemon wrote last; None: no daemon ever served this spool."""
    try:
        content = json_text.loads(spool.overview_file.read_bytes())
    except FileNotFoundError:
        return None
    return content if isinstance(content, dict) else None


def is_served(spool: Spool) -> bool | None:
    """A daemon holds the spool's lock; None: this user may not look."""
    try:
        return disk.is_locked(spool.lock_file)
    except PermissionError:
        return None


def shown(spool: Spool, overview: Mapping[str, Any] | None, alive: bool | None) -> RenderableType:
    if overview is None:
        words = f"{spool.root}: no daemon has served this spool yet. datarun run --spool {spool.root}"
        return Text(words, no_wrap=True, overflow="ignore")
    parts: list[RenderableType] = [_headline(spool, overview, alive)]
    for table in (
        _datasets(overview),
        _running(overview),
        _queue(overview),
        _arriving(overview),
        _results(overview),
        _rejected(overview),
    ):
        if table.row_count:
            parts += ["", table]
    return Group(*parts)


def _headline(spool: Spool, overview: Mapping[str, Any], alive: bool | None) -> Text:
    age_seconds = (datetime.now(UTC) - datetime.fromisoformat(overview["written_at"])).total_seconds()
    daemon = overview["daemon"]
    who = f"datarun {daemon['version']} on {daemon['host']}"
    words = {
        True: (f"{who} serves {spool.root} since {_time(daemon['started_at'])}", "green"),
        False: (f"no daemon serves {spool.root}; what follows is {_duration(age_seconds)} old", "bold red"),
        None: (f"{who} wrote what follows {_duration(age_seconds)} ago", "yellow"),
    }
    text = Text(*words[alive], no_wrap=True, overflow="ignore")
    slots, counts, memory = overview["slots"], overview["counts"], overview["memory"]
    facts = (
        f"{sum(slots['running'].values())} of {slots['total']} slots busy",
        f"{overview['queue']['length']} folds wait",
        f"{counts['TESTED']} tested, {counts['ERROR']} in error, {counts['CANCELLED']} cancelled",
        f"{overview['outbox']} results wait in the outbox",
        f"{_size(memory['used_bytes'])} of {_size(memory['budget_bytes'])} memory",
    )
    text.append("\n" + "; ".join(facts), "default")
    return text


def _datasets(overview: Mapping[str, Any]) -> Table:
    table = _table("Datasets", "name", "state", "train", "test", "folds")
    for dataset in overview["datasets"][:_ROWS]:
        folds = ", ".join(f"{count} {state}" for state, count in dataset["folds"].items())
        state = dataset["state"] + (" (loaded)" if dataset["loaded"] else "")
        if dataset["reason"]:
            state += f": {printable(dataset['reason'])}"
        _row(table, dataset["name"], state, dataset["n_train"], dataset["n_test"], folds)
    return _with_rest(table, len(overview["datasets"]))


def _running(overview: Mapping[str, Any]) -> Table:
    table = _table("Running", "fold", "submission", "dataset", "priority", "phase", "for", "memory")
    for fold in overview["running"][:_ROWS]:
        memory = f"{_size(fold['memory_bytes'])} of {_size(fold['memory_limit_bytes'])}"
        phase = fold["phase"] + (" (adopted)" if fold["adopted"] else "")
        _row(
            table, fold["fold"], fold["submission"], fold["dataset"], fold["priority"], phase,
            _duration(fold["elapsed_seconds"]), memory,
        )  # fmt: skip
    return _with_rest(table, len(overview["running"]))


def _queue(overview: Mapping[str, Any]) -> Table:
    table = _table("Queue", "", "fold", "submission", "dataset", "priority", "attempt", "waits for")
    for fold in overview["queue"]["folds"][:_ROWS]:
        _row(
            table, fold["position"], fold["fold"], fold["submission"], fold["dataset"], fold["priority"],
            fold["attempt"], fold["waits_for"],
        )  # fmt: skip
    return _with_rest(table, overview["queue"]["length"])


def _arriving(overview: Mapping[str, Any]) -> Table:
    table = _table("Arriving", "kind", "name", "since", "waits for")
    for bundle in overview["arriving"][:_ROWS]:
        _row(table, bundle["kind"], bundle["name"], _time(bundle["since"]), bundle["waits_for"])
    return _with_rest(table, len(overview["arriving"]))


def _results(overview: Mapping[str, Any]) -> Table:
    table = _table("Last results", "fold", "submission", "dataset", "state", "ended", "seconds", "")
    for fold in overview["last_results"][:_ROWS]:
        seconds = "" if fold["wall_seconds"] is None else f"{fold['wall_seconds']:.3g}"
        about = fold["message"] or ("" if fold["folder"] else "picked up")
        _row(
            table, fold["fold"], fold["submission"], fold["dataset"], fold["state"], _time(fold["ended_at"]),
            seconds, about, colour=_COLOURS.get(fold["state"]),
        )  # fmt: skip
    return table


def _rejected(overview: Mapping[str, Any]) -> Table:
    table = _table("Last rejected", "kind", "name", "at", "problems", "the first")
    for bundle in overview["last_rejected"][:_ROWS]:
        _row(table, bundle["kind"], bundle["name"], _time(bundle["at"]), bundle["problems"], bundle["first"])
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _row(table: Table, *values: object, colour: str | None = None) -> None:
    # Text, not str: brackets in a name must not act as rich's markup
    table.add_row(*(Text("" if v is None else printable(str(v), 200)) for v in values), style=colour)


def _with_rest(table: Table, total: int) -> Table:
    if total > table.row_count:
        table.caption = f"and {total - table.row_count} more; datarun status --json tells all that is known"
        table.caption_justify = "left"
    return table


def _time(iso: str) -> str:
    """The time of today, or the day, of this place's clock."""
    moment = datetime.fromisoformat(iso).astimezone()
    today = moment.date() == datetime.now(UTC).astimezone().date()
    return moment.strftime("%H:%M:%S" if today else "%Y-%m-%d")


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _size(number_bytes: int) -> str:
    size = float(number_bytes)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
