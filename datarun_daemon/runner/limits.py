"""What the kernel itself holds a fold to (setrlimit); the keeper polls for the rest."""

from __future__ import annotations

import os
import resource
from typing import TypedDict

from . import processes

_OPEN_FILES = 1024


class LimitsMessage(TypedDict):
    """protocol.Limits as it travels."""

    wall_soft_seconds: float
    wall_hard_seconds: float
    memory_bytes: int
    processes: int
    file_bytes: int
    log_bytes: int
    predictions_bytes: int


def apply(limits: LimitsMessage) -> dict[str, int]:
    """The calling process and what it starts are held to these, for good; returns what was set.

    Data memory is counted on top of what we started with (libraries and dataset, which are shared).
    RLIMIT_DATA counts what is reserved, not what is touched, and each process by itself: the sum over a
    tree is the keeper's to watch. RLIMIT_NPROC is not set: it counts all processes of a user (and none
    of root's), so it can't tell this fold's.
    """
    data_bytes = _data_bytes() + limits["memory_bytes"]
    wanted = {
        "data": (resource.RLIMIT_DATA, data_bytes),
        "fsize": (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        "core": (resource.RLIMIT_CORE, 0),
        "nofile": (resource.RLIMIT_NOFILE, _OPEN_FILES),
    }
    in_force = {}
    for name, (which, value) in wanted.items():
        _, hard = resource.getrlimit(which)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))
        in_force[name] = value
    return in_force


def _data_bytes() -> int:
    # VmData holds private writable mappings that are not the stack, which is what RLIMIT_DATA bounds.
    return processes.status_bytes(os.getpid()).get(b"VmData", 0)
