"""``datarun demo``: a daemon, the example bundles, and what comes out of them, in half a minute.

Everything is real: the daemon is a process of its own, and bundles are dropped as any client drops them.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

import datarun_daemon
from datarun_daemon import disk
from datarun_daemon.commands.status import is_served
from datarun_daemon.core.errors import DatarunError
from datarun_daemon.core.model import BundleKind
from datarun_daemon.spool.layout import REASON, Spool
from datarun_daemon.spool.yaml_reading import read_yaml

#: quicker than the defaults, since the bundles with mistakes have no digests; the log is for the file
_CONFIG = "intake: {settle_seconds: 1, scan_seconds: 1}\nstatus_seconds: 0.5\non_stop: end\nlog: {format: json}\n"
_PATIENCE_SECONDS = 240.0
_STOP_SECONDS = 20.0
_LOOK_SECONDS = 0.1
#: of the predictions, and of each REASON.txt, that are shown
_LINES = 4
_REASON_LINES = 9


class DemoFailed(DatarunError):
    """The demonstration could not be given."""

    exit_code = 1


@dataclass
class Sent:
    """A bundle that was dropped, and what has become of it so far."""

    name: str
    kind: BundleKind
    is_wrong: bool
    status: str = "sent"
    #: ids of the folds that its receipt names
    folds: frozenset[str] = frozenset()
    #: states of those that have a result in the outbox
    states: list[str] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        if self.is_wrong:
            return self.status == "rejected"
        if self.kind is BundleKind.FOLDS and not self.folds:
            return False
        return self.status == "accepted" and self.states == ["TESTED"] * len(self.folds)


def demo(spool: Path | None, *, keep: bool) -> int:
    """1 if a result or a rejection did not come."""
    console = Console(highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="datarun-demo-", ignore_cleanup_errors=True) as scratch:
        work = Path(scratch)
        if spool:
            root = spool.absolute()
        else:
            # a spool that is to be kept does not lie in the folder that is removed
            root = Path(tempfile.mkdtemp(prefix="datarun-spool-")) if keep else work / "spool"
        status = _show(console, _fresh_spool(root), work)
    if keep or spool:
        console.print(f"\nThe spool is still there: {root}")
    return status


def _fresh_spool(root: Path) -> Spool:
    spool = Spool.create(root)
    if spool.catalog_file.exists():
        raise DemoFailed(f"{root} has been used already; the demonstration needs a new spool")
    return spool


def _show(console: Console, spool: Spool, work: Path) -> int:
    console.print(f"The spool is {spool.root}")
    bundles = _make_bundles(work / "bundles")
    with _daemon(spool, work):
        console.print(f"A daemon serves it. {len(bundles)} bundles are dropped into incoming/, five of them wrong.\n")
        sent = [_drop(spool, work / "bundles", bundle) for bundle in bundles]
        deadline = time.monotonic() + _PATIENCE_SECONDS
        with Live(console=console, refresh_per_second=8) as live:
            while not all(bundle.is_done for bundle in sent) and time.monotonic() < deadline:
                for bundle in sent:
                    if not bundle.is_done:
                        _look(spool, bundle)
                live.update(_progress(sent))
                time.sleep(_LOOK_SECONDS)
            live.update(_progress(sent))
    _show_outbox(console, spool)
    _show_predictions(console, spool)
    _show_reasons(console, spool)
    missing = [bundle.name for bundle in sent if not bundle.is_done]
    if missing:
        console.print(Text(f"\nThese did not end as they should: {', '.join(missing)}", "bold red"))
        shutil.copy(work / "daemon.log", spool.root / "daemon.log")
        console.print(Text((work / "daemon.log").read_text(errors="replace")[-4000:]))
        return 1
    results = sum(len(bundle.folds) for bundle in sent)
    wrong = sum(bundle.is_wrong for bundle in sent)
    console.print(Text(f"\n{results} results, {wrong} bundles rejected: all as it should be.", "green"))
    return 0


def _make_bundles(target: Path) -> list[Path]:
    package = Path(datarun_daemon.__file__).resolve().parent
    candidates = (package.parent / "examples" / "make_bundles.py", package / "_examples" / "make_bundles.py")
    script = next((path for path in candidates if path.is_file()), None)
    if script is None:
        raise DemoFailed(f"the examples are not where they should be, at {candidates[0]}; install datarun again")
    # in a process of its own, so that this one does without scikit-learn
    made = subprocess.run([sys.executable, str(script), str(target)], capture_output=True, text=True)
    if made.returncode != 0:
        raise DemoFailed(f"{script} failed:\n{made.stderr}")
    return [Path(line) for line in made.stdout.splitlines()] + sorted((target / "wrong").glob("*/*"))


@contextmanager
def _daemon(spool: Spool, work: Path) -> Iterator[None]:
    config = work / "config.yaml"
    config.write_text(_CONFIG)
    command = [sys.executable, "-m", "datarun_daemon", "run", "--config", str(config), "--spool", str(spool.root)]
    with (work / "daemon.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + _STOP_SECONDS
        while not is_served(spool):
            if process.poll() is not None or time.monotonic() > deadline:
                raise DemoFailed(f"the daemon did not start:\n{(work / 'daemon.log').read_text(errors='replace')}")
            time.sleep(_LOOK_SECONDS)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _drop(spool: Spool, made_in: Path, bundle: Path) -> Sent:
    kind = BundleKind(bundle.parent.name)
    hidden = spool.incoming_of(kind) / f".{bundle.name}"
    shutil.copytree(bundle, hidden)
    disk.rename(hidden, hidden.with_name(bundle.name))
    return Sent(bundle.name, kind, is_wrong=bundle.is_relative_to(made_in / "wrong"))


def _look(spool: Spool, bundle: Sent) -> None:
    """What has become of the bundle, from its receipt and the outbox."""
    try:
        receipt = read_yaml(spool.receipt(bundle.kind, bundle.name).read_bytes())
    except FileNotFoundError:
        return
    if not isinstance(receipt, dict):
        return
    bundle.status = str(receipt["status"])
    folds = receipt.get("folds")
    if isinstance(folds, list):  # it is a text as long as the folds are to be generated
        bundle.folds = frozenset(map(str, folds))
    ended = [result for result in _results(spool) if result.name in bundle.folds]
    bundle.states = [json.loads((result / "result.json").read_bytes())["state"] for result in ended]


def _results(spool: Spool) -> list[Path]:
    return sorted(path.parent for path in spool.outbox.glob("[!.]*/*/*/result.json"))


def _progress(sent: list[Sent]) -> Table:
    table = Table("bundle", "kind", "", "results", box=None, header_style="dim")
    for bundle in sent:
        colour = "green" if bundle.is_done else "yellow"
        results = f"{len(bundle.states)} of {len(bundle.folds)}" if bundle.folds else ""
        name = bundle.name + (" (wrong)" if bundle.is_wrong else "")
        table.add_row(name, bundle.kind.value, Text(bundle.status, colour), results)
    return table


def _show_outbox(console: Console, spool: Spool) -> None:
    tree = Tree("outbox/")
    branches: dict[Path, Tree] = {spool.outbox: tree}
    for number, result in enumerate(_results(spool)):
        for folder in (result.parent.parent, result.parent):
            if folder not in branches:
                branches[folder] = branches[folder.parent].add(f"{folder.name}/")
        leaf = branches[result.parent].add(f"{result.name}/")
        if number == 0:
            for file in sorted(result.iterdir()):
                leaf.add(f"{file.name}  ({file.stat().st_size} bytes)")
    console.print("\n", tree, sep="")


def _show_predictions(console: Console, spool: Spool) -> None:
    for result in _results(spool)[:1]:
        file = result / "test_predictions.csv"
        console.print(f"\n{spool.relative(file)} begins with")
        with file.open() as lines:
            for _, line in zip(range(_LINES), lines, strict=False):
                console.print(Text("  " + line.rstrip("\n")))


def _show_reasons(console: Console, spool: Spool) -> None:
    for reason in sorted(spool.rejected.glob(f"*/*/{REASON}")):
        console.print(Text(f"\n{spool.relative(reason)}", "yellow"))
        lines = reason.read_text(errors="replace").splitlines()
        console.print(Text("\n".join([*lines[:_REASON_LINES], *(["…"] if len(lines) > _REASON_LINES else [])])))
