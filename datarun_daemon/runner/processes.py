"""Linux processes: who descends from whom, what they use, and how they end.

Numbers come from /proc and from the kernel's clocks, so they hold whatever the process itself says.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
#: the exit status of a child of ours that failed by itself (EX_SOFTWARE)
_OUR_MISTAKE = 70
_MADV_COLLAPSE = 25
_HUGE_PAGE_BYTES = 2 << 20
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_libc = ctypes.CDLL(None, use_errno=True)


def keep_only(descriptors: Iterable[int]) -> None:
    """Only these descriptors are open afterwards."""
    first = 0
    for descriptor in sorted(set(descriptors)):
        if first < descriptor:  # Python hands an empty range on to the kernel, which then closes everything
            os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, 1 << 30)


def live(work: Callable[[], NoReturn]) -> NoReturn:
    """A forked child's whole life: nothing of what its parent was about to do is done in the child.

    An exception goes to standard error: a server's is kept, and told by its pool; a fold's is its log.
    """
    try:
        work()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(_OUR_MISTAKE)


def set_name(name: str) -> None:
    """What ps and top show; at most 15 bytes."""
    _libc.prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()), 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """The kernel kills us when the parent's (only) thread ends; we end now if it has ended already."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def adopt_orphans() -> None:
    """Descendants whose parent ends become our children, instead of init's."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def renounce_privileges() -> bool:
    """no_new_privs: a set-uid program gives us and our children nothing any more."""
    return bool(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)


def use_huge_pages() -> None:
    """Private memory that we hold lies in huge pages as far as it can: a fork copies fewer entries.

    Measured: fork and exit of a child 9.5 ms before, 7.0 after. Kernels before 6.1 can't; nothing is lost.
    """
    with open("/proc/self/maps") as maps:
        lines = maps.read().splitlines()
    for line in lines:
        fields = line.split()
        if fields[1] != "rw-p" or (len(fields) > 5 and fields[5] != "[heap]"):
            continue
        first, last = (int(address, 16) for address in fields[0].split("-"))
        first = -(-first // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES
        last = last // _HUGE_PAGE_BYTES * _HUGE_PAGE_BYTES
        if last > first:
            _libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _MADV_COLLAPSE)


def children(pid: int) -> list[int]:
    """Direct children of a process's first thread; empty if it is gone.

    All processes of the runner fork from their only thread. For a submission that starts processes from
    other threads this misses some until they become orphans, which is when they are looked for.
    """
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb", 0) as file:
            return [int(child) for child in file.read().split()]
    except ProcessLookupError:
        return []
    except FileNotFoundError:
        return _children_by_scan(pid) if os.path.exists(f"/proc/{pid}") else []


def _children_by_scan(pid: int) -> list[int]:
    """For kernels built without CONFIG_PROC_CHILDREN: looks at every process."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _stat_fields(int(name))
            if fields and int(fields[1]) == pid:
                found.append(int(name))
    return found


def descendants(pid: int) -> list[int]:
    """All below a process, not itself; ended ones that nobody waited for included."""
    found: list[int] = []
    waiting = children(pid)
    while waiting:
        child = waiting.pop()
        found.append(child)
        waiting.extend(_children_of_all_threads(child))
    return found


def _children_of_all_threads(pid: int) -> list[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    if len(threads) == 1:
        return children(pid)
    found: list[int] = []
    for thread in threads:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb", 0) as file:
            found.extend(int(child) for child in file.read().split())
    return found


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it ended by itself
    except PermissionError:
        pass  # a set-uid program: only a sandbox with no_new_privs (which folds have) prevents it


def end_strays(known: Iterable[int]) -> bool:
    """Kills and reaps every child of ours that is not known, with all below it; True once there is none.

    A process that is killed forks no more, and what it left becomes our child: repeating this ends
    every tree.
    """
    me = os.getpid()
    strays = set(children(me)).difference(known)
    for stray in strays:
        for pid in (*descendants(stray), stray):
            kill(pid)
    for stray in strays:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(stray, os.WNOHANG)
    return not strays or not set(children(me)).difference(known)


def own_cpu_seconds(pid: int) -> float:
    """CPU time of a process's threads (ended ones too), to the nanosecond; 0 if it is gone."""
    try:
        return time.clock_gettime((~pid << 3) | 2)  # the kernel's CPUCLOCK_SCHED of that process
    except OSError:
        return 0.0


def tree_cpu_seconds(pid: int) -> float:
    """CPU time of a process, its descendants, and its children that have ended (those in 10 ms steps)."""
    return sum(own_cpu_seconds(each) + _waited_cpu_seconds(each) for each in (pid, *descendants(pid)))


def _waited_cpu_seconds(pid: int) -> float:
    fields = _stat_fields(pid)
    return (int(fields[13]) + int(fields[14])) / _TICKS_A_SECOND if fields else 0.0


def _stat_fields(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the third (state) on; empty if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb", 0) as file:
            # The name may hold spaces and parentheses.
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def status_bytes(pid: int) -> dict[bytes, int]:
    """The memory lines of /proc/PID/status, in bytes, by name (VmRSS, VmHWM, RssAnon, …); empty if gone or a zombie."""
    try:
        with open(f"/proc/{pid}/status", "rb", 0) as file:
            lines = file.read().split(b"\n")
    except OSError:
        return {}
    found = {}
    for line in lines:
        if line.endswith(b" kB"):
            name, _, value = line.partition(b":")
            found[name] = int(value[:-3]) * 1024
    return found


def reset_peak(pid: int) -> None:
    """VmHWM starts again from what is resident now."""
    try:
        descriptor = os.open(f"/proc/{pid}/clear_refs", os.O_WRONLY)
    except OSError:
        return  # it has ended, or the kernel has no clear_refs: the peak stays that of the phases before
    try:
        os.write(descriptor, b"5")
    except OSError:
        pass  # as above
    finally:
        os.close(descriptor)


def proportional_bytes(pid: int) -> int:
    """Resident memory, pages shared with n others counted as 1/n. Exact and slow (milliseconds)."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb", 0) as file:
            for line in file.read().split(b"\n"):
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass  # it has ended
    return 0
