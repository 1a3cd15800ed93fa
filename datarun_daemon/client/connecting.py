"""From what a user calls a spool to the way there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datarun_daemon.client.local import LocalTransport
from datarun_daemon.client.ssh import SshPlace, SshTransport
from datarun_daemon.client.transport import Transport
from datarun_daemon.core.errors import SpoolError


def connected(location: str | Path, ssh_options: Sequence[str] = ()) -> Transport:
    """The way to the spool at a path or an ssh:// URL.

    Raises:
        SpoolError: there is no spool.
        Unreachable: there is no way to its machine.
    """
    text = str(location)
    if isinstance(location, str) and text.lower().startswith("ssh://"):
        return SshTransport(SshPlace.parse(text), ssh_options)
    host, colon, path = text.partition(":")
    if colon and "/" not in host and not Path(text).exists():
        hint = "a path" if path.startswith("//") else f"a path, or ssh://{host}/{path.lstrip('/')}"
        raise SpoolError(f"{text} names no spool; expected {hint}")
    return LocalTransport(Path(location).expanduser())
