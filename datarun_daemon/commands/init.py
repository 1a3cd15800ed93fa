"""``datarun init``: makes a spool."""

from __future__ import annotations

from pathlib import Path

from datarun_daemon.config import load_config
from datarun_daemon.core.errors import SpoolError
from datarun_daemon.spool.layout import Spool


def init(folder: Path | None, config: Path | None, *, shared: bool) -> int:
    """The spool is there, and so is what it held before.

    Raises:
        SpoolError: the folders cannot be made.
    """
    root = folder.absolute() if folder is not None else load_config(config).spool
    was_there = Spool(root).marker.exists()
    try:
        spool = Spool.create(root, shared=shared)
    except OSError as error:
        raise SpoolError(f"{error.filename or root} cannot be made: {error.strerror}") from error
    print(f"{root} {'was a spool already; nothing is missing in it now' if was_there else 'is a spool now'}")
    print(f"  run a daemon on it:   datarun run --spool {root}")
    print(f"  send it a bundle:     datarun submit BUNDLE --spool {root}, or copy one into {spool.incoming}")
    print(f"  see what it does:     datarun status --spool {root}")
    return 0
