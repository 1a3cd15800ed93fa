"""Stands in for a daemon where a test decides what is answered: takes bundles, writes receipts and views."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from datarun_daemon import disk
from datarun_daemon.core.errors import Problem
from datarun_daemon.core.model import BundleId, BundleKind
from datarun_daemon.spool import receipts
from datarun_daemon.spool.layout import Spool, is_bundle_name
from datarun_daemon.spool.manifest import FoldsManifest, Manifest, parse_manifest

AT = "2026-11-24T00:00:00.000000Z"
#: what an accepted bundle's receipt says beside its sequence, the problems of a rejected one, or what is missing
Answer = Mapping[str, object] | list[Problem] | str


def accept(manifest: Manifest) -> Answer:
    if isinstance(manifest, FoldsManifest):
        return {"submission": manifest.submission.id, "folds": [fold.id for fold in manifest.folds]}
    return {}


class ScriptedDaemon:
    """Answers while its context lasts."""

    def __init__(self, spool: Spool, answer: Callable[[Manifest], Answer] = accept) -> None:
        self.spool = spool
        #: manifests of all bundles that were taken, and the names of these
        self.taken: list[Manifest] = []
        self.names: list[str] = []
        self._answer = answer
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def show(
        self,
        folds: Mapping[int | str, str],
        *,
        sequence: int = 1_000_000,
        datasets: list[dict[str, Any]] | None = None,
    ) -> None:
        """The views have reached this line of the catalog, and show these folds with their states."""
        rows = [json.dumps({"id": fold, "state": state, "new": False}) for fold, state in folds.items()]
        self._write(self.spool.folds_file, "".join(f"{row}\n" for row in rows))
        self._write(self.spool.datasets_file, json.dumps(datasets or []))
        self.spool.fold_files.mkdir(exist_ok=True)
        for fold, row in zip(folds, rows, strict=True):
            self._write(self.spool.fold_file(str(fold)), row)
        self._write(self.spool.overview_file, json.dumps({"sequence": sequence}))

    def deliver(self, name: str, rows: list[dict[str, Any]], unknown: list[int | str]) -> None:
        """The answer to the predictions request of this name, without files."""
        folder = self.spool.outbox_request(name)
        hidden = folder.with_name(f".{folder.name}")
        hidden.mkdir(parents=True)
        content = {"format": 1, "request": name, "at": AT, "folds": rows, "unknown": unknown}
        (hidden / "predictions.json").write_text(json.dumps(content))
        hidden.rename(folder)

    def _write(self, path: Path, text: str) -> None:
        disk.write_atomically(path, text.encode(), durable=False)

    def _serve(self) -> None:
        while not self._over.wait(0.005):
            for kind in BundleKind:
                for path in sorted(self.spool.incoming_of(kind).iterdir()):
                    if is_bundle_name(path.name) and path.name not in self.names:
                        self._take(kind, path)

    def _take(self, kind: BundleKind, path: Path) -> None:
        file = path / "manifest.yaml" if path.is_dir() else path
        manifest = parse_manifest(kind, file.read_bytes())
        self.taken.append(manifest)
        self.names.append(path.name)
        bundle = BundleId(kind, path.name, len(self.taken), "")
        match self._answer(manifest):
            case str(missing):
                receipts.write_incomplete(self.spool, kind, path.name, at=AT, owner_uid=0, missing=[missing])
                return
            case list(problems):
                receipts.write_rejected(self.spool, bundle, at=AT, owner_uid=0, problems=problems, folder=None)
            case registered:
                content = {"sequence": 10 * len(self.taken), **registered}
                receipts.write_accepted(self.spool, bundle, at=AT, owner_uid=0, registered=content)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
