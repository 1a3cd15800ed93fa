"""The machine as a daemon of this user would meet it: limits, isolation, interpreters, clock."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from datarun_daemon import __version__
from datarun_daemon.commands.finding import Finding, Verdict
from datarun_daemon.config import Config
from datarun_daemon.core.model import Priority
from datarun_daemon.machine import this_machine

_GIB = 2**30
_SYS_LANDLOCK_CREATE_RULESET = 444
_CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_NEWPID, _CLONE_NEWIPC, _CLONE_NEWNS = (
    0x10000000, 0x40000000, 0x20000000, 0x08000000, 0x00020000,
)  # fmt: skip
#: what the daemon itself imports
_OUR_PACKAGES = ("watchdog", "PyYAML", "psutil", "structlog", "pydantic", "msgspec", "typer", "rich")
_LIST_PACKAGES = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
found = {"python": sys.version.split()[0]}
for name in ("numpy", "pandas", "scikit-learn"):
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        found[name] = None
print(json.dumps(found))
"""


def probe_machine(config: Config) -> Iterator[Finding]:
    yield from _capacity(config)
    yield from _inotify()
    yield _landlock()
    yield _namespaces()
    yield _seccomp()
    yield _cgroup()
    yield _ourselves()
    for name, interpreter in config.interpreters().items():
        yield _interpreter(name, interpreter)
    yield _clock()


def _capacity(config: Config) -> Iterator[Finding]:
    machine = this_machine()
    capacity = config.capacity(machine)
    threads = capacity.slots * config.cores_per_slot
    found = f"{capacity.slots}, of {config.cores_per_slot} core(s) each, on {machine.cores} cores"
    if threads > machine.cores:
        yield Finding("slots", Verdict.WARN, found, "folds slow each other down: slots: auto")
    else:
        yield Finding("slots", Verdict.OK, found)
    largest_bytes = max(config.fold_limits(priority)["memory_bytes"] for priority in Priority)
    fit = capacity.memory_budget_bytes // largest_bytes
    found = f"{capacity.memory_budget_bytes / _GIB:.1f} GiB for folds of up to {largest_bytes / _GIB:.1f} GiB"
    if capacity.memory_budget_bytes > machine.memory_bytes:
        found += f", on a machine of {machine.memory_bytes / _GIB:.1f} GiB"
        yield Finding("memory", Verdict.WARN, found, "less fold.memory_bytes, or folds may be killed for others")
    elif fit < capacity.slots:
        found += f": {fit} at a time"
        yield Finding("memory", Verdict.WARN, found, "slots stay empty: less fold.memory_bytes, or fewer slots")
    else:
        yield Finding("memory", Verdict.OK, found)


def _inotify() -> Iterator[Finding]:
    limits = Path("/proc/sys/fs/inotify")
    try:
        watches = int((limits / "max_user_watches").read_text())
        instances = int((limits / "max_user_instances").read_text())
    except OSError:
        yield Finding("inotify", Verdict.WARN, "there is none", "intake.watch: polling")
        return
    used = _inotify_instances_of(os.getuid())
    found = f"{used} of {instances} instances and up to {watches} watches for this user; a daemon takes 1 and 3"
    if used >= instances or watches < 16:
        advice = "sysctl fs.inotify.max_user_instances=512 fs.inotify.max_user_watches=65536"
        yield Finding("inotify", Verdict.WARN, f"{found}: it would look for itself instead", advice)
    else:
        yield Finding("inotify", Verdict.OK, found)


def _inotify_instances_of(uid: int) -> int:
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.stat().st_uid == uid:
                links = (entry.readlink() for entry in (process / "fd").iterdir())
                count += sum(str(link) == "anon_inode:inotify" for link in links)
        except OSError:
            continue  # it ended meanwhile, or is not ours to look at
    return count


def _landlock() -> Finding:
    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(_SYS_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if abi < 1:
        found = f"none ({os.strerror(ctypes.get_errno())})"
        return Finding("Landlock", Verdict.WARN, found, "Linux 5.13 or newer, with lsm=landlock")
    return Finding("Landlock", Verdict.OK, f"ABI {abi}")


def _namespaces() -> Finding:
    flags = _CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWPID | _CLONE_NEWIPC | _CLONE_NEWNS
    libc = ctypes.CDLL(None, use_errno=True)
    child = os.fork()
    if child == 0:
        os._exit(0 if libc.unshare(flags) == 0 else min(ctypes.get_errno(), 255))
    number = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if number != 0:
        found = f"user, network, pid and mount namespaces are refused ({os.strerror(number)})"
        advice = "sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone; the unit's RestrictNamespaces="
        return Finding("namespaces", Verdict.WARN, found, advice)
    return Finding("namespaces", Verdict.OK, "user, network, pid, ipc and mount namespaces can be made")


def _seccomp() -> Finding:
    if Path("/proc/sys/kernel/seccomp/actions_avail").exists():
        return Finding("seccomp", Verdict.OK, "available")
    return Finding("seccomp", Verdict.WARN, "not available", "a kernel with CONFIG_SECCOMP_FILTER")


def _cgroup() -> Finding:
    root = Path("/sys/fs/cgroup")
    if not root.is_dir():
        return Finding("cgroup", Verdict.WARN, "none", "memory is watched by polling")
    kind = "version 2" if (root / "cgroup.controllers").exists() else "version 1"
    if kind == "version 1" and (root / "unified").is_dir():
        kind = "version 1 and 2 (hybrid)"
    own = _own_cgroup(root)
    if own is not None and os.access(own, os.W_OK):
        return Finding("cgroup", Verdict.OK, f"{kind}; {own} is delegated to this user")
    return Finding("cgroup", Verdict.WARN, f"{kind}; none is delegated to this user", "Delegate=yes in the unit")


def _own_cgroup(root: Path) -> Path | None:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        base = root if not controllers else root / "memory"
        if (not controllers or "memory" in controllers.split(",")) and (base / path.lstrip("/")).is_dir():
            return base / path.lstrip("/")
    return None


def _ourselves() -> Finding:
    versions: dict[str, str | None] = {}
    for name in _OUR_PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return _packages(f"datarun {__version__}", {"python": sys.version.split()[0], **versions})


def _interpreter(name: str, interpreter: str) -> Finding:
    about = f"environment {name}"
    try:
        # -I: as the daemon starts it
        answer = subprocess.run(
            [interpreter, "-I", "-c", _LIST_PACKAGES], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        advice = "the path of a Python interpreter that the daemon's user may execute"
        return Finding(about, Verdict.FAIL, f"{interpreter} does not run ({error})", advice)
    return _packages(about, json.loads(answer.stdout), interpreter)


def _packages(about: str, versions: Mapping[str, str | None], interpreter: str = sys.executable) -> Finding:
    found = ", ".join(f"{name} {number or 'missing'}" for name, number in versions.items())
    missing = [name for name, number in versions.items() if number is None]
    if missing:
        return Finding(about, Verdict.FAIL, found, f"{interpreter} -m pip install {' '.join(missing)}")
    return Finding(about, Verdict.OK, f"{found} ({interpreter})")


def _clock() -> Finding:
    # adjtimex(2) with no mode set changes nothing, and says whether anything disciplines the clock
    timex = ctypes.create_string_buffer(256)
    synchronised = ctypes.CDLL(None).adjtimex(timex) != 5
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if synchronised:
        return Finding("clock", Verdict.OK, f"{now}, synchronised")
    return Finding("clock", Verdict.WARN, f"{now}, not synchronised", "timedatectl set-ntp true")
