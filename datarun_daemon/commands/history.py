"""``datarun history``: everything that ever happened to one fold, and where its results and files lie."""

from __future__ import annotations

import glob
import json as json_text
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from datarun_daemon.commands.choosing import chosen_config
from datarun_daemon.core.events import Event
from datarun_daemon.core.history import Moment, history
from datarun_daemon.spool.catalog import read
from datarun_daemon.spool.layout import Spool
from datarun_daemon.spool.names import printable
from datarun_daemon.spool.views import iso

_DETAIL_CHARACTERS = 500


def tell(fold: str, spool: Path | None, config: Path | None, *, json: bool) -> int:
    """1 if the catalog knows no fold of that id."""
    opened = Spool.open(chosen_config(config, spool).spool)
    moments = list(history(_facts(opened), fold))
    archived = list(opened.results.glob(f"*/*/{glob.escape(fold)}/*/result.json"))
    archived.sort(key=lambda path: int(path.parent.name))
    results = [opened.relative(path.parent) for path in archived]
    if json:
        rows = [{**asdict(moment), "at": iso(moment.at)} for moment in moments]
        print(json_text.dumps({"fold": fold, "history": rows, "archived_results": results}))
    elif moments:
        _show(moments, results)
    else:
        print(f"datarun: {opened.root} has no fold {printable(fold, 100)}", file=sys.stderr)
    return 0 if moments else 1


def _facts(spool: Spool) -> Iterator[tuple[int, float, Event]]:
    for entry, _ in read(spool.catalog_file):
        yield entry.sequence, entry.at, entry.fact


def _show(moments: list[Moment], results: list[str]) -> None:
    console = Console(highlight=False, soft_wrap=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("line", "time", "attempt", "what", ""):
        table.add_column(column, overflow="fold")
    for moment in moments:
        attempt = "" if moment.attempt is None else str(moment.attempt)
        detail = escape(printable(moment.detail, _DETAIL_CHARACTERS))
        table.add_row(str(moment.sequence), iso(moment.at)[:19] + "Z", attempt, moment.what, detail)
    console.print(table)
    for result in results:
        console.print(f"archived: {result}", soft_wrap=True)
