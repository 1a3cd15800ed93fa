"""The process that writes results, one after the other, for one keeper.

Apart from the keeper because folds are forked from that: what a keeper has read, a later fold could
find in its own memory. It starts before the keeper's first fold, and ends with the keeper.
"""

from __future__ import annotations

import gc
import os
import socket
from typing import NoReturn

from . import processes, results, wire


def main(link: socket.socket, *, keeper: int) -> NoReturn:
    """Answers each job on the link with ``error`` (a text, or null) once its result is complete, or can't be."""
    processes.die_with_parent(keeper)
    processes.set_name("datarun-writer")
    processes.keep_only([0, 1, 2, link.fileno()])
    gc.enable()
    while (message := wire.receive(link)) is not None:
        try:
            results.write(message["job"], message["outcome"])
        except Exception as error:
            answer: str | None = f"the result could not be written: {type(error).__name__}: {error}"
        else:
            answer = None
        wire.send(link, {"key": message["key"], "error": answer})
    os._exit(0)
