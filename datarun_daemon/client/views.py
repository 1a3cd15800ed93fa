"""What the daemon shows in ``status/``: read again only when it was written anew.

The views follow the catalog by up to some seconds. ``overview.json`` is written last and tells the
catalog line that all of them have reached, which is why it is read first.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from datarun_daemon.client.answers import FoldId
from datarun_daemon.client.errors import NoAnswer
from datarun_daemon.client.transport import PATHS, Transport
from datarun_daemon.core.model import FoldState


class _State(msgspec.Struct, frozen=True, gc=False):
    """Of a fold's line, what is needed to wait for it."""

    id: FoldId
    state: FoldState


class Views:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._versions: dict[Path, str] = {}
        self._sequence = 0
        self._states: dict[str, FoldState] = {}

    def reach(self, sequence: int) -> bool:
        """The views are at least as new as this line of the catalog."""
        if self._sequence < sequence:
            data = self._newer(PATHS.overview_file)
            if data is not None:
                self._sequence = json.loads(data).get("sequence", 0)
        return self._sequence >= sequence

    def states(self) -> dict[str, FoldState]:
        """Of all folds that the view shows, by id as text."""
        data = self._newer(PATHS.folds_file)
        if data is not None:
            rows = msgspec.json.Decoder(_State).decode_lines(data)
            self._states = {str(row.id): row.state for row in rows}
        return self._states

    def folds(self) -> list[dict[str, Any]]:
        data = self._whole(PATHS.folds_file)
        return msgspec.json.Decoder(dict[str, Any]).decode_lines(data)

    def datasets(self) -> list[dict[str, Any]]:
        return msgspec.json.decode(self._whole(PATHS.datasets_file), type=list[dict[str, Any]])

    def fold(self, fold: str) -> dict[str, Any] | None:
        """Everything known of one fold; None: no view shows it."""
        found = self._transport.read(PATHS.fold_file(fold))
        return None if found is None else msgspec.json.decode(found.data, type=dict[str, Any])

    def _newer(self, path: Path) -> bytes | None:
        """What the file holds, if it was written since it was last asked for."""
        found = self._transport.read(path, unless=self._versions.get(path, ""))
        if found is None:
            return None
        self._versions[path] = found.version
        return found.data

    def _whole(self, path: Path) -> bytes:
        found = self._transport.read(path)
        if found is None:
            raise NoAnswer(f"{self._transport.place}: there is no {path}; no daemon has served this spool yet")
        return found.data
