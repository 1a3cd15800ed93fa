"""The daemon's ends of sockets to runner processes: sending never blocks, and descriptors are never leaked."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import wire


class Link:
    """One end; what the other side has no room for yet waits here, in order."""

    __slots__ = ("_waiting", "gone", "socket")

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self.socket = end
        self._waiting: deque[tuple[bytes, tuple[int, ...]]] = deque()
        #: the other side has closed its end
        self.gone = False

    def fileno(self) -> int:
        return self.socket.fileno()

    @property
    def full(self) -> bool:
        return bool(self._waiting)

    def send(self, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """The message is on its way, or waits; the descriptors are no longer the caller's. Raises wire.TooLong."""
        self._waiting.append((wire.encode(message), tuple(descriptors)))
        self.flush()

    def flush(self) -> None:
        """Sends what waits, as far as there is room. A vanished receiver is noticed by receiving."""
        while self._waiting:
            packet, descriptors = self._waiting[0]
            try:
                wire.send_packet(self.socket, packet, descriptors)
            except BlockingIOError:
                return
            except OSError:
                pass  # the other side is gone: whoever reads from this link learns it
            self._waiting.popleft()
            for descriptor in descriptors:
                os.close(descriptor)

    def messages(self) -> Iterator[dict[str, Any]]:
        """All that has come; ``gone`` is set if nothing more will."""
        while not self.gone:
            try:
                message = wire.receive(self.socket)
            except BlockingIOError:
                return
            if message is None:
                self.gone = True
                return
            yield message

    def close(self) -> None:
        for _, descriptors in self._waiting:
            for descriptor in descriptors:
                os.close(descriptor)
        self._waiting.clear()
        self.socket.close()
