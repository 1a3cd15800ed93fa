"""A task in a process of its own, watched from outside: it ends in time, and everything it started ends with it.

The watcher never runs what the task runs. What it is told by the task's process is a claim: of the words
it only knows which is the last, and a process that said nothing has its end told instead.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, NoReturn

from . import isolation, processes, surroundings, wire

Say = Callable[[dict[str, Any]], None]
Work = Callable[[dict[str, Any], Say], None]
#: by kind of task: the last word of one that succeeds
_LAST_WORDS = {"prepare": "prepared", "generate": "generated"}
_POLL_SECONDS = 0.25
_SWEEP_SECONDS = 0.005
_REASON_CHARACTERS = 5000
_DOING_CHARACTERS = 300
_PRINTED_BYTES = 2000
_SIGNALS = {number.value: number.name for number in signal.Signals}


class DaemonGone(Exception):
    """Nobody waits for the answer any more."""


class WatchedTask:
    """One task of the daemon's, from the fork of its process to its end."""

    def __init__(self, task: dict[str, Any], work: Work, *, doing: str) -> None:
        """Its process exists afterwards.

        Args:
            work: what the process does; it says ``doing`` (what it does next), ``folds``, and a last word.
            doing: what it does first, in words that can be followed by "failed".
        """
        self._doing = doing
        self._success = _LAST_WORDS[task["kind"]]
        self._strangers = bool(task.get("specific"))
        self._wall_seconds: float = task["wall_seconds"]
        self._memory_bytes: int = task.get("memory_bytes", 0)
        self._printed = b""
        self._words, theirs = wire.pair()
        self._output, output = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._output, False)
        watcher = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            processes.live(lambda: _live(task, work, theirs, output=output, watcher=watcher))
        theirs.close()
        os.close(output)
        self._deadline = time.monotonic() + self._wall_seconds
        self._pidfd = os.pidfd_open(self._pid)
        self._anonymous_at_start = _anonymous_bytes(self._pid)
        self._proportional_at_start = processes.proportional_bytes(self._pid) if self._memory_bytes else 0

    def last_word(self, link: socket.socket) -> dict[str, Any]:
        """What it answers (its folds are passed on to the link at once); nothing of it is left afterwards.

        Raises DaemonGone, once the other side of the link is closed; nothing of it is left then either.
        """
        try:
            word = self._watch(link)
        finally:
            while not processes.end_strays(()):
                select.select([], [], [], _SWEEP_SECONDS)
        if word["op"] != "failed":
            return word
        self._hear_output()
        return self._failed(str(word.get("reason")), transient=bool(word.get("transient")))

    def _watch(self, link: socket.socket) -> dict[str, Any]:
        poll = select.poll()
        poll.register(link.fileno(), 0)  # tells only that the other side is gone
        for descriptor in (self._words.fileno(), self._output, self._pidfd):
            poll.register(descriptor, select.POLLIN)
        while True:
            patience = max(0.0, min(_POLL_SECONDS, self._deadline - time.monotonic()))
            ready = {descriptor for descriptor, _ in poll.poll(patience * 1000)}
            if link.fileno() in ready:
                raise DaemonGone
            if self._output in ready and not self._hear_output():
                poll.unregister(self._output)
            if self._words.fileno() in ready:
                try:
                    word = wire.receive(self._words)
                except wire.Garbled as error:
                    word = {"op": "failed", "reason": f"{self._doing} said what can't be read: {error}"}
                if word is None:
                    poll.unregister(self._words.fileno())
                elif word.get("op") == "doing":
                    self._doing = str(word.get("what"))[:_DOING_CHARACTERS]
                elif word.get("op") == "folds" and not self._strangers:
                    wire.send(link, word)
                elif word.get("op") in (self._success, "failed"):
                    return word
                else:
                    return {"op": "failed", "reason": f"{self._doing} said something that no task says"}
            elif self._pidfd in ready:
                return self._ended()
            excess = self._exceeded()
            if excess:
                return {"op": "failed", "reason": f"{self._doing} {excess}", "transient": False}

    def _exceeded(self) -> str | None:
        if time.monotonic() >= self._deadline:
            return f"did not end within {self._wall_seconds:g} seconds, which is the limit"
        if self._memory_bytes and self._held_bytes() > self._memory_bytes:
            return f"used more memory than the {self._memory_bytes} bytes that are the limit"
        return None

    def _held_bytes(self) -> int:
        """On top of what its process started with, by all that descends from it."""
        tree = processes.descendants(os.getpid())
        held = sum(max(0, _anonymous_bytes(pid) - self._anonymous_at_start) for pid in tree)
        if held > self._memory_bytes and len(tree) > 1:
            # Forked children share pages with each other, which were counted for each of them.
            held = min(held, sum(map(processes.proportional_bytes, tree)) - self._proportional_at_start)
        return held

    def _hear_output(self) -> bool:
        """What was printed last is kept; False once nobody can print any more."""
        with contextlib.suppress(BlockingIOError):
            block = os.read(self._output, 1 << 16)
            self._printed = (self._printed + block)[-_PRINTED_BYTES:]
            return bool(block)
        return True

    def _ended(self) -> dict[str, Any]:
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        if code >= 0:
            how = f"ended its process with exit status {code}"
        else:
            note = ", by itself or by the kernel for lack of memory" if code == -signal.SIGKILL else ""
            how = f"had its process ended by signal {-code} ({_SIGNALS.get(-code, 'unknown')}{note})"
        return {"op": "failed", "reason": f"{self._doing} {how}", "transient": not self._strangers}

    def _failed(self, reason: str, *, transient: bool) -> dict[str, Any]:
        reason = reason[:_REASON_CHARACTERS]
        printed = self._printed.decode(errors="replace").strip()
        if self._strangers and printed:
            reason += f"\nIt printed last:\n{printed}"
        shown = (mark if mark.isprintable() or mark in "\n\t" else "\N{REPLACEMENT CHARACTER}" for mark in reason)
        return {"op": "failed", "reason": "".join(shown), "transient": transient}


def _live(task: dict[str, Any], work: Work, words: socket.socket, *, output: int, watcher: int) -> NoReturn:
    processes.keep_only([0, 1, 2, words.fileno(), output])
    os.setsid()
    processes.die_with_parent(watcher)
    processes.set_name("datarun-prepare")
    surroundings.redirect(output)
    surroundings.empty_environment()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    isolation.enter_early(new_session=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if task.get("memory_bytes"):
        limit = processes.status_bytes(os.getpid()).get(b"VmData", 0) + task["memory_bytes"]
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    gc.enable()
    me = os.getpid()

    def say(word: dict[str, Any]) -> None:
        if os.getpid() != me:
            os._exit(0)  # a child that the dataset's code forked came back here
        wire.send(words, word)

    work(task, say)
    os._exit(0)


def _anonymous_bytes(pid: int) -> int:
    status = processes.status_bytes(pid)
    return status.get(b"RssAnon", 0) + status.get(b"RssShmem", 0)
