"""A thread for slow work: it takes tasks in batches, and its failure ends the daemon."""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Task = TypeVar("Task")


@dataclass(frozen=True, slots=True)
class WorkerFailed:
    """A worker thread ended by an exception; without it the daemon cannot go on."""

    name: str
    error: BaseException


class Worker(ABC, Generic[Task]):
    """Runs ``work`` on batches of tasks in a thread of its own until :meth:`stop`."""

    def __init__(self, name: str, post: Callable[[object], None]) -> None:
        #: hands a value to the loop
        self.post = post
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abstractmethod
    def work(self, tasks: Sequence[Task]) -> None:
        """Do these tasks (none, if only time has passed); called in the worker's thread."""

    def wait_seconds(self) -> float | None:
        """How long to wait for a task before ``work`` is called without one; None is for ever."""
        return None

    def start(self) -> None:
        self._thread.start()

    def give(self, task: Task) -> None:
        self._tasks.put(task)

    def wake(self) -> None:
        """``work`` is called soon, task or none."""
        self._tasks.put(None)

    def stop(self) -> None:
        """All tasks given before are done, and the thread has ended."""
        self._stopping = True
        self.wake()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            while True:
                last = self._stopping
                self.work(self._batch(0.0 if last else self.wait_seconds()))
                if last:
                    return
        except BaseException as error:
            self.post(WorkerFailed(self._thread.name, error))

    def _batch(self, timeout: float | None) -> list[Task]:
        batch = []
        try:
            task = self._tasks.get(timeout=timeout)
            while True:
                if task is not None:
                    batch.append(task)
                task = self._tasks.get_nowait()
        except queue.Empty:
            return batch
