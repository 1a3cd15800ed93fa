"""One interpreter with its libraries imported once; forks keepers and preparing children, and does nothing else.

It never computes (threads of OpenMP and BLAS do not survive a fork), has one thread, and logs nothing.
It outlives the daemon: once that is gone it takes no more work, and ends with its last child.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.metadata
import os
import platform
import select
import socket
import sys
from typing import Any, NoReturn

from . import keeper, prepare, processes, wire

#: what most submissions import; whatever else they want they import themselves, in each fold
_MODULES = (
    "sklearn.calibration",
    "sklearn.compose",
    "sklearn.decomposition",
    "sklearn.discriminant_analysis",
    "sklearn.ensemble",
    "sklearn.feature_selection",
    "sklearn.impute",
    "sklearn.linear_model",
    "sklearn.metrics",
    "sklearn.model_selection",
    "sklearn.naive_bayes",
    "sklearn.neighbors",
    "sklearn.neural_network",
    "sklearn.pipeline",
    "sklearn.preprocessing",
    "sklearn.svm",
    "sklearn.tree",
)
_PACKAGES = {"numpy": "numpy", "pandas": "pandas", "scikit-learn": "sklearn", "scipy": "scipy"}
_SWEEP_SECONDS = 0.05


def main(control: int) -> NoReturn:
    """Serves the control link, given as a descriptor."""
    keeper.ignore_signals()
    processes.adopt_orphans()
    processes.set_name("datarun-server")
    processes.keep_only([0, 1, 2, control])
    os.chdir("/")
    for module in _MODULES:
        importlib.import_module(module)
    prepare_to_fork()
    link = socket.socket(fileno=control)
    packages = {name: str(sys.modules[module].__version__) for name, module in _PACKAGES.items()}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # only RAMP kits need it, and only in folds
        packages["ramp-workflow"] = importlib.metadata.version("ramp-workflow")
    known = {"python": platform.python_version(), "packages": packages}
    with contextlib.suppress(OSError):  # the daemon is gone already: heard below
        wire.send(link, {"op": "ready", "threads": len(os.listdir("/proc/self/task")), **known})
    _Server(link, known).serve()
    os._exit(0)


def prepare_to_fork() -> None:
    """A fork copies as little as it can: no collection touches old objects, pages are huge, first calls are made."""
    from .fold import touch_pages

    touch_pages()
    gc.collect()
    gc.freeze()
    gc.disable()
    processes.use_huge_pages()


class _Server:
    def __init__(self, link: socket.socket, known: dict[str, Any]) -> None:
        self._link = link
        self._known = known
        self._children: set[int] = set()
        self._open = True
        self._poll = select.poll()
        self._poll.register(link.fileno(), select.POLLIN)
        self._pidfds: dict[int, int] = {}

    def serve(self) -> None:
        while self._open or self._children:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._link.fileno():
                    self._hear()
                else:
                    self._bury(descriptor)

    def _hear(self) -> None:
        message, descriptors = wire.receive_with_descriptors(self._link)
        if message is None:
            self._open = False
            self._poll.unregister(self._link.fileno())
            return
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            processes.live(lambda: self._become_child(message, socket.socket(fileno=descriptors[0]), server))
        for descriptor in descriptors:
            os.close(descriptor)
        self._children.add(pid)
        pidfd = os.pidfd_open(pid)
        self._pidfds[pidfd] = pid
        self._poll.register(pidfd, select.POLLIN)

    def _become_child(self, message: dict[str, Any], link: socket.socket, server: int) -> NoReturn:
        if message["op"] == "open":
            told = {**message["told"], **self._known}
            keeper.main(link, message["folder"], server=server, told=told, cores=message["cores"])
        prepare.main(link, message["task"], server=server)

    def _bury(self, pidfd: int) -> None:
        """A child has ended. What a keeper leaves behind (its folds' escaped processes) is ours, and ends too."""
        pid = self._pidfds.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        os.waitpid(pid, 0)
        self._children.discard(pid)
        while not processes.end_strays(self._children):
            select.select([], [], [], _SWEEP_SECONDS)
