"""A spool on another machine, by the real ``ssh`` and ``rsync`` and whatever their configuration says.

One connection carries all (multiplexing, through a socket in a private folder), so that a look costs
milliseconds. Nobody is ever asked for a password: a login that needs one is an error.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from datarun_daemon.client.errors import NameTaken, TransferFailed, Unreachable
from datarun_daemon.client.transport import PATHS, Content
from datarun_daemon.core.errors import SpoolError
from datarun_daemon.core.model import BundleKind
from datarun_daemon.spool.layout import FORMAT, MARKER

#: ends of our scripts there; ssh itself ends with 255
_NO_FOLDER, _NO_SPOOL, _NOTHING_NEW, _NAME_TAKEN, _SSH_FAILED = 41, 42, 44, 45, 255
#: of rsync, when the connection or the other side is gone (10, 12, 30, 35) or ssh failed
_RSYNC_CUT_OFF = frozenset({10, 12, 30, 35, _SSH_FAILED})
_RSYNC_NOT_THERE = 127
_COMMAND_SECONDS = 60.0
_STALL_SECONDS = 60
#: the path of a socket has room for 108 bytes, and ssh needs some for itself
_SOCKET_FOLDER_CHARACTERS = 60
_HINTS = {
    "Permission denied": "a key that needs no password is wanted there: ssh-copy-id puts one, ssh-add opens one, "
    "ssh_options=('-i', FILE) names one",
    "Host key verification failed": "connect once by hand, and compare the key that is shown",
    "Could not resolve hostname": "the name of the machine, or ~/.ssh/config",
    "Connection refused": "does sshd run there, on this port?",
}


@dataclass(frozen=True, slots=True)
class SshPlace:
    host: str
    user: str | None
    port: int | None
    #: absolute, or relative to the home folder there
    path: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """From ``ssh://[user@]host[:port]/path``. Raises SpoolError: it is not such a thing."""
        expected = "expected ssh://USER@HOST:PORT/PATH; USER and PORT may be left out"
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise SpoolError(f"{url}: {error}; {expected}") from error
        if parts.password is not None:
            raise SpoolError(f"{parts.scheme}://{host}: a password is never used; put a key there (ssh-copy-id)")
        path = unquote(parts.path)
        user = unquote(parts.username) if parts.username else None
        odd = not path.isprintable() or any(text.startswith("-") for text in (host, user or ""))
        if not host or path in ("", "/") or parts.query or parts.fragment or odd:
            raise SpoolError(f"{url} names no spool; {expected}")
        # urlsplit spells it in lower case, and ~/.ssh/config may not
        spelled = parts.netloc.rpartition("@")[2]
        start = spelled.lower().find(host)
        return cls(spelled[start : start + len(host)], user, port, path.removeprefix("/~/"))

    @property
    def url(self) -> str:
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port else ""
        return f"ssh://{user}{host}{port}{'' if self.path.startswith('/') else '/~/'}{self.path}"


class SshTransport:
    """Connected: the spool is there.

    Raises:
        SpoolError: there is no spool at this path.
        Unreachable: there is no way to the machine.
    """

    look_again_seconds = 0.1
    follow_seconds = 1.0

    def __init__(self, place: SshPlace, options: Sequence[str] = ()) -> None:
        self.place = place.url
        self._there = place
        #: absolute, once we were there
        self._root = place.path if place.path.startswith("/") else f"./{place.path}"
        short = Path(tempfile.gettempdir())
        if len(str(short)) > _SOCKET_FOLDER_CHARACTERS:
            short = Path("/tmp")
        own = Path(tempfile.mkdtemp(prefix="datarun-ssh-", dir=short))
        # of an option that is given twice, ssh takes the first
        self._ssh = [
            "ssh", "-o", "BatchMode=yes", *options,
            "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3",
            "-o", "ControlMaster=auto", "-o", f"ControlPath={own}/socket", "-o", "ControlPersist=60",
            *(("-p", str(place.port)) if place.port else ()), *(("-l", place.user) if place.user else ()),
        ]  # fmt: skip
        self._finish = weakref.finalize(
            self, _hang_up, [*self._ssh, "-O", "exit", "--", place.host], own, os.getpid()
        )
        try:
            self._check_spool()
        except BaseException:
            self._finish()
            raise

    def send(self, source: Path, kind: BundleKind, name: str) -> None:
        hidden = f".{name[:200]}.{os.getpid()}-{secrets.token_hex(4)}"
        folder = PATHS.incoming_of(kind).as_posix()
        try:
            self._rsync(
                "--copy-links", "--perms", "--chmod=Du=rwx,Dgo=rx,Fu=rw,Fgo=r", "--",
                f"{source}/" if source.is_dir() else str(source), self._remote(f"{folder}/{hidden}"),
            )  # fmt: skip
            # whoever shares the incoming folder may remove what lies in ours, as in a folder made there
            self._sh(
                f"cd {shlex.quote(folder)} && h={shlex.quote('./' + hidden)} t={shlex.quote('./' + name)} || exit 1; "
                f'if [ -e "$t" ] || [ -L "$t" ]; then exit {_NAME_TAKEN}; fi; '
                'if [ -d "$h" ]; then find "$h" -type d -exec chmod "$(stat -c %a .)" {} + || exit 1; fi; '
                f'mv -nT "$h" "$t"; code=$?; if [ -e "$h" ]; then [ -e "$t" ] && exit {_NAME_TAKEN}; exit $code; fi'
            )
        except BaseException as error:
            # whatever happened; where there is no way there any more, it stays under a name that nobody looks at
            with contextlib.suppress(Unreachable, TransferFailed):
                self._sh(f"rm -rf {shlex.quote(f'{folder}/{hidden}')}", seconds=10.0)
            if isinstance(error, _Ended) and error.code == _NAME_TAKEN:
                raise NameTaken(
                    f"{self.place}/{folder}/{name} is there already; wait until it is taken, or give another name"
                ) from None
            raise

    def read(self, path: Path, *, unless: str = "") -> Content | None:
        try:
            out = self._sh(
                f"f={shlex.quote(path.as_posix())}; [ -e \"$f\" ] && v=$(stat -c '%i %s %y' \"$f\") || "
                f'exit {_NOTHING_NEW}; [ "$v" = {shlex.quote(unless)} ] && exit {_NOTHING_NEW}; '
                'echo "$v"; exec cat "$f"'
            )
        except _Ended as ended:
            if ended.code == _NOTHING_NEW:
                return None
            raise
        # the version may be older than the content, never newer
        version, _, data = out.partition(b"\n")
        return Content(data, version.decode("ascii", "replace"))

    @contextmanager
    def fetch(self, folder: Path) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="datarun-fetched-") as fetched:
            self._rsync("--times", "--", self._remote(f"{folder.as_posix()}/"), f"{fetched}/")
            yield Path(fetched)

    def remove(self, folder: Path) -> None:
        self._sh(f"rm -rf {shlex.quote(folder.as_posix())}")

    def close(self) -> None:
        self._finish()

    def _check_spool(self) -> None:
        folders = " ".join(map(str, (*PATHS.incoming_folders(), PATHS.receipts, PATHS.outbox, PATHS.status)))
        try:
            told = self._sh(
                f"pwd; cat {MARKER} || exit {_NO_SPOOL}; for f in {folders}; "
                f'do if [ ! -d "$f" ]; then echo "its folder $f is missing" >&2; exit {_NO_SPOOL}; fi; done'
            )
        except _Ended as ended:
            if ended.code not in (_NO_FOLDER, _NO_SPOOL):
                raise
            raise SpoolError(
                f"{self.place} is not a spool: {ended.words}; `datarun init {self._there.path}` there makes one"
            ) from None
        root, _, marker = told.partition(b"\n")
        self._root = os.fsdecode(root)
        found = marker.decode("utf-8", "replace").strip()
        if found != f"datarun spool, format {FORMAT}":
            raise SpoolError(
                f"{self.place}/{MARKER} says {found[:60]!r}; this version of datarun reads format {FORMAT}"
            )

    def _sh(self, script: str, *, seconds: float = _COMMAND_SECONDS) -> bytes:
        """What the script wrote, run in the spool's folder. Raises _Ended, Unreachable."""
        enter = f"cd {shlex.quote(self._root)} || exit {_NO_FOLDER}; "
        # as its input: whatever the login shell there is, nothing needs quoting for it
        code, out, words = self._run(
            [*self._ssh, "--", self._there.host, "exec sh"], (enter + script + "\n").encode(), seconds
        )
        if code == _SSH_FAILED:
            raise self._unreachable(words)
        if code:
            raise _Ended(f"{self.place}: {words or f'a command there ended with status {code}'}", code, words)
        return out

    def _rsync(self, *arguments: str) -> None:
        # --secluded-args: no shell there looks at the paths
        command = [
            "rsync", "--recursive", "--secluded-args", f"--timeout={_STALL_SECONDS}", "-e", shlex.join(self._ssh),
            *arguments,
        ]  # fmt: skip
        code, _, words = self._run(command, b"", None)
        if code == _RSYNC_NOT_THERE or (code in _RSYNC_CUT_OFF and "rsync: command not found" in words):
            raise TransferFailed(f"{self.place}: rsync is not installed there; rsync says: {words}")
        if code in _RSYNC_CUT_OFF:
            raise self._unreachable(words)
        if code:
            raise TransferFailed(f"{self.place}: rsync says: {words or f'status {code}'}")

    def _remote(self, path: str) -> str:
        host = f"[{self._there.host}]" if ":" in self._there.host else self._there.host
        return f"{host}:{self._root}/{path}"

    def _run(self, command: Sequence[str], data: bytes, seconds: float | None) -> tuple[int, bytes, str]:
        # a file, not a pipe: the connection that stays in the background may keep it open
        with tempfile.TemporaryFile() as words:
            try:
                done = subprocess.run(
                    command, input=data, stdout=subprocess.PIPE, stderr=words, timeout=seconds, check=False
                )
            except FileNotFoundError:
                raise Unreachable(
                    f"{self.place}: the program {command[0]} is not installed on this machine; install it"
                ) from None
            except subprocess.TimeoutExpired:
                raise Unreachable(f"{self.place}: no answer within {seconds:g} seconds") from None
            words.seek(0)
            return done.returncode, done.stdout, words.read().decode("utf-8", "replace").strip()

    def _unreachable(self, words: str) -> Unreachable:
        by_hand = shlex.join(["ssh", "-o", "BatchMode=yes", *self._by_hand(), "true"])
        hint = next((hint for part, hint in _HINTS.items() if part in words), "")
        return Unreachable(
            f"{self.place}: ssh says: {words or 'nothing'}" + (f"\n  {hint}" if hint else "") + f"\n  try: {by_hand}"
        )

    def _by_hand(self) -> list[str]:
        port = ["-p", str(self._there.port)] if self._there.port else []
        return [*port, f"{self._there.user}@{self._there.host}" if self._there.user else self._there.host]


class _Ended(TransferFailed):
    """A command there ended with a status other than 0."""

    def __init__(self, message: str, code: int, words: str) -> None:
        self.code = code
        self.words = words
        super().__init__(message)


def _hang_up(command: Sequence[str], own: Path, opener: int) -> None:
    if os.getpid() != opener:
        return  # in a forked child: the connection is its parent's, too
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        # it says so when no connection was left
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       timeout=10.0, check=False)  # fmt: skip
    shutil.rmtree(own, ignore_errors=True)
