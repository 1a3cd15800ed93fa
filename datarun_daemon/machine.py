"""What this machine offers to us: usable cores and memory, also within a container's limits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Machine:
    #: that this process may run on
    cores: int
    #: physical, or the cgroup's limit if that is less
    memory_bytes: int


def this_machine() -> Machine:
    physical_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        cores=len(os.sched_getaffinity(0)), memory_bytes=min([physical_bytes, *_cgroup_memory_limits()])
    )


def _cgroup_memory_limits() -> Iterator[int]:
    """Every limit from our cgroup up to the root, of version 1 and 2."""
    root = Path("/sys/fs/cgroup")
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return  # no cgroups: no limit
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        folder = base / path.lstrip("/")
        for place in (folder, *folder.parents):
            try:
                text = (place / name).read_text().strip()
            except OSError:
                continue  # the root has none, and a container may not see its own path
            if text.isdigit():
                yield int(text)
            if place == base:
                break
