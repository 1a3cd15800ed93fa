"""One JSON object a packet over SOCK_SEQPACKET sockets, with descriptors beside it.

Both sides use it, the daemon and the runner. A packet arrives whole or not at all.
"""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

#: what a sender may put into one packet; below the kernel's default send buffer (208 KiB)
PACKET_BYTES = 160_000
_MAX_DESCRIPTORS = 8
_ANCILLARY_BYTES = socket.CMSG_SPACE(_MAX_DESCRIPTORS * 4)
#: one for the process: every process of the runner is single-threaded, and so is the pool
_buffer = bytearray(1 << 18)


class Garbled(Exception):
    """A packet that is no JSON object."""


class TooLong(Exception):
    """A message that does not fit a packet."""


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def encode_any(message: Mapping[str, Any]) -> bytes:
    """As encode(), of any length: for a file."""
    return json.dumps(message, separators=(",", ":")).encode()


def encode(message: Mapping[str, Any]) -> bytes:
    """Raises TooLong if it does not fit a packet."""
    packet = encode_any(message)
    if len(packet) > PACKET_BYTES:
        raise TooLong(f"{len(packet)} bytes; at most {PACKET_BYTES} fit")
    return packet


def send(link: socket.socket, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Raises BlockingIOError (a non-blocking link is full), OSError (the other side is gone), TooLong."""
    send_packet(link, encode(message), descriptors)


def send_packet(link: socket.socket, packet: bytes, descriptors: Sequence[int] = ()) -> None:
    if descriptors:
        socket.send_fds(link, [packet], list(descriptors), socket.MSG_NOSIGNAL)
    else:
        link.send(packet, socket.MSG_NOSIGNAL)


def receive(link: socket.socket, *, flags: int = 0) -> dict[str, Any] | None:
    """The next message, or None once the other side is gone. Descriptors sent with it are dropped by the kernel.

    Raises BlockingIOError (nothing there, on a non-blocking link), Garbled.
    """
    try:
        size = link.recv_into(_buffer, 0, flags)
    except ConnectionResetError:
        return None
    return _decode(size) if size else None


def receive_with_descriptors(link: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """As receive(), for a side that is trusted: also the descriptors, which are close-on-exec."""
    try:
        size, ancillary, _, _ = link.recvmsg_into([_buffer], _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return None, []
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    if not size:
        for descriptor in descriptors:
            os.close(descriptor)
        return None, []
    return _decode(size), list(descriptors)


def _decode(size: int) -> dict[str, Any]:
    try:
        message = json.loads(_buffer[:size])
    except (ValueError, RecursionError) as error:
        raise Garbled(str(error)) from None
    if not isinstance(message, dict):
        raise Garbled("not a JSON object")
    return message
