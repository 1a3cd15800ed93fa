"""The one thing the loop waits on for its own threads and signals: a queue with a descriptor."""

from __future__ import annotations

import os
import queue


class Wakeups:
    """Values posted by any thread or signal handler, taken by the loop."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """Readable when :meth:`take` has something."""
        return self._descriptor

    def post(self, value: object) -> None:
        """Never blocks, and may be called from a signal handler."""
        self._queue.put(value)
        os.eventfd_write(self._descriptor, 1)

    def take(self) -> list[object]:
        """Everything posted so far, in order."""
        try:
            os.eventfd_read(self._descriptor)
        except BlockingIOError:
            return []  # nothing was posted since
        values = []
        while True:
            try:
                values.append(self._queue.get_nowait())
            except queue.Empty:
                return values
