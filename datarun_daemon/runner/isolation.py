"""The place where a fold shuts itself in, and the record of what is in force.

Two steps: :func:`enter_early` runs in a spare child before it knows its fold (costs no fold any time);
:func:`enter` runs once the fold's own paths and limits are known, right before submission code is
imported. Each layer tells, as text, whether it holds; the record goes into the result.
"""

from __future__ import annotations

from . import limits as rlimits
from . import processes

#: every layer there is, as it is until it is entered
_LAYERS = ("session", "no_new_privs", "rlimits", "landlock", "namespaces", "seccomp", "cgroup", "user")


def enter_early(*, new_session: bool) -> dict[str, str]:
    """Enters what needs no knowledge of the fold."""
    record = dict.fromkeys(_LAYERS, "off")
    record["session"] = "on" if new_session else "off"
    record["no_new_privs"] = "on" if processes.renounce_privileges() else "off"
    return record


def enter(record: dict[str, str], *, scratch: str, submission: str, limits: rlimits.LimitsMessage) -> dict[str, str]:
    """Enters the rest; scratch is to be writable, submission readable."""
    in_force = rlimits.apply(limits)
    return {**record, "rlimits": ", ".join(f"{name}={value}" for name, value in in_force.items())}
