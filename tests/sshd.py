"""A real sshd on loopback, with keys and a configuration of its own, and what a client needs to get in."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.daemon_process import wait_for

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def program(name: str) -> str:
    """Where it is; a machine without it fails the test."""
    found = shutil.which(name, path=_PATH)
    assert found, f"{name} is missing; .ci/run names the Debian package"
    return found


@dataclass(frozen=True, slots=True)
class Sshd:
    folder: Path
    port: int

    @property
    def key(self) -> Path:
        return self.folder / "user_key"

    @property
    def options(self) -> tuple[str, ...]:
        """For ssh: nothing of this user's own configuration is read."""
        return (
            "-F", "none", "-i", str(self.key), "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
            "-o", f"UserKnownHostsFile={self.folder / 'known_hosts'}",
        )  # fmt: skip

    def url(self, path: Path | str) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{path}"

    @property
    def logins(self) -> int:
        """Connections that were let in so far."""
        return (self.folder / "log").read_text(errors="replace").count("Accepted publickey")


@contextmanager
def running_sshd(folder: Path, *, path: str | None = None) -> Iterator[Sshd]:
    """Serves this user, with one key.

    Args:
        path: the PATH of what runs there; None: its own default.
    """
    folder.mkdir(parents=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host_key", "user_key"):
        subprocess.run(
            [program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True, timeout=60
        )
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    host_key = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    lines = [
        f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {folder}/host_key", f"PidFile {folder}/pid",
        f"AuthorizedKeysFile {folder}/authorized_keys", "StrictModes no", "UsePAM no", "PermitRootLogin yes",
        "PasswordAuthentication no", "KbdInteractiveAuthentication no", "MaxStartups 100",
    ]  # fmt: skip
    if path is not None:
        lines.append(f"SetEnv PATH={path}")
    (folder / "config").write_text("\n".join(lines) + "\n")
    command = [program("sshd"), "-D", "-f", str(folder / "config"), "-E", str(folder / "log")]
    process = subprocess.Popen(command)
    try:
        wait_for(lambda: _listens(port) or process.poll() is not None, "sshd to listen")
        assert process.poll() is None, (folder / "log").read_text()
        yield Sshd(folder, port)
    finally:
        process.terminate()
        process.wait(60)


def _listens(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
