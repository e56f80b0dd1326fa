"""Messages over one TCP connection: framing, proof of a secret, and the peer's silence.

    nonce (32 bytes) ─► proof (32 bytes) ─► length (4 bytes), msgpack [number, items, acks] …

Rules of this file:

1. Both sides prove that they know the secret: HMAC-SHA256 over role and both nonces, so that a
   proof cannot be reflected. Nothing else is read before, and a peer that takes longer than
   `PROOF_TIME` is cut off. With TLS all of it is encrypted.
2. Messages are numbered from 0. A gap, a repeat or anything malformed ends the connection.
3. An end is final: there is no reconnecting.
4. Whether the other machine is alive is decided by the kernel (`silence`), not by a loop, which may
   be blocked for a minute: a machine answers TCP probes whatever its programs do. TCP_USER_TIMEOUT
   is not set, as it would also end a connection whose peer answers but has no room.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
import socket
import struct
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from typing import Any, cast

import msgpack  # type: ignore[import-untyped]  # ships no type information

from .._transport.pipe import file_of

PROOF_TIME = 10.0  # seconds
MAX_MESSAGE = 1 << 26
ROOM = 1 << 18  # unsent bytes above which the sender must hold back

_LENGTH = struct.Struct(">I")
_SIZE = 32  # of a nonce, and of a proof


class Item(IntEnum):
    """The kind of an item of a message; its fields are in brackets."""

    # host to node
    WELCOME = 1  # [seconds of silence after which the other side is lost]
    # [worker, generation, pickled `WorkerConfig`, pickled loop_initializer or None]: start
    # a process
    START = 2
    KILL = 3  # [worker, generation]
    # node to host
    HELLO = 4  # [versions, by name]: before all others
    STARTED = 5  # [worker, generation, pid]
    KILLED = 6  # [worker, generation]: it was killed, and ENDED will follow
    # [worker, generation, exit code, cause, begun, blocked]: the last two are those of
    # `WorkerHandle`, None if they are not known. All that the worker wrote has been sent.
    ENDED = 7
    USAGE = 8  # [worker, generation, CPU in per cent, resident bytes]
    # both ways
    DATA = 9  # [worker, generation, bytes of the pipe]
    CLOCK = 10  # [host's time], and back [the same, node's time, node's time of day]


class Messages(asyncio.Protocol):
    """One end of the connection.

    Args:
        sock: The connected socket, which it owns from now on.
        secret: The secret that both ends know.
        role: Which end this is: b"host" or b"node".
        take: Called with items and acks of each message.
        room: Called when it has room again.
        lost: Called once, with the reason, when a proven connection has ended.

    Attributes:
        proven: Done when the other side has proven itself; an OSError if it has not.
        has_room: Whether more than small items may be sent.
    """

    def __init__(
        self,
        sock: socket.socket,
        secret: bytes,
        role: bytes,
        take: Callable[[list[Any], dict[int, list[int]]], None],
        room: Callable[[], None],
        lost: Callable[[str], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.proven: asyncio.Future[None] = loop.create_future()
        self.has_room = True
        self._socket = sock
        self._file = file_of(sock.fileno())
        self._secret, self._role = secret, role
        self._take, self._room, self._lost = take, room, lost
        self._buffer = bytearray()
        self._mine = secrets.token_bytes(_SIZE)
        self._theirs = b""
        self._is_proven = False  # apart from `proven`, which a waiter may have cancelled
        self._sent = self._taken = 0  # messages
        self._cause = ""
        self._transport: asyncio.Transport | None = None
        self._patience = loop.call_later(PROOF_TIME, self.abort, "it does not prove itself")
        _open.add(self)

    def send(self, items: list[Any], acks: dict[int, list[int]]) -> None:
        """Send a message, unless the connection has ended."""
        if self._transport is None or self._transport.is_closing() or not self._is_ours():
            return
        body = msgpack.packb([self._sent, items, acks])
        self._sent += 1
        self._transport.write(_LENGTH.pack(len(body)) + body)

    def abort(self, cause: str) -> None:
        """End the connection; `lost` is called later, if it had been proven."""
        self._cause = self._cause or cause
        if self._transport is not None:
            self._transport.abort()

    def let_go(self) -> None:
        """End the connection without its loop, which is closed; the other side notices."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def tune(self, lost_after: float) -> None:
        """Have the kernel probe the other machine while that is silent."""
        tune(self._socket, lost_after)

    def silence(self) -> float:
        """Return for how many seconds the other machine has not answered; 0: it does."""
        try:
            return silence_of(self._socket)
        except OSError:  # it has ended, which `lost` reports
            return 0.0

    # ---- called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with the proof."""
        # A cast, as uvloop's is of no class of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(ROOM)
        if self._cause:  # it was aborted meanwhile
            self._transport.abort()
            return
        self._transport.write(self._mine)

    def data_received(self, data: bytes) -> None:
        """Check the proof, and then take messages."""
        self._buffer += data
        try:
            if self._prove():
                self._take_messages()
        except _NoMessage as error:
            self.abort(str(error))
        except Exception as error:  # noqa: BLE001  the items may be anything
            self.abort(f"it sends what cannot be handled: {error!r}")

    def pause_writing(self) -> None:
        """Note that there is no room."""
        self.has_room = False

    def resume_writing(self) -> None:
        """Report that there is room again."""
        self.has_room = True
        self._room()

    def connection_lost(self, error: Exception | None) -> None:
        """Report the end."""
        _open.discard(self)
        self._patience.cancel()
        cause = self._cause or ("" if error is None else f"{error}") or "the other side closed it"
        if self._is_proven:
            self._lost(cause)
        elif not self.proven.done():
            self.proven.set_exception(OSError(cause))
            self.proven.exception()  # it may never be awaited

    # ---- inside

    def _is_ours(self) -> bool:
        """Return whether the descriptor is still the socket's; else end the connection."""
        if file_of(self._socket.fileno()) == self._file:
            return True
        self._socket.detach()  # the descriptor is another file's: neither use nor close it
        self.abort("its descriptor was closed or replaced by other code")
        return False

    def _prove(self) -> bool:
        """Check nonce and proof; return whether the other side is proven."""
        while not self._is_proven:
            if len(self._buffer) < _SIZE or self._cause:
                return False
            head = bytes(self._buffer[:_SIZE])
            del self._buffer[:_SIZE]
            assert self._transport is not None
            if not self._theirs:
                self._theirs = head
                self._transport.write(self._digest(self._role, self._mine, head))
                continue
            other = b"node" if self._role == b"host" else b"host"
            if not hmac.compare_digest(self._digest(other, self._theirs, self._mine), head):
                raise _NoMessage("it does not know the secret")
            self._patience.cancel()
            self._is_proven = True
            if not self.proven.done():
                self.proven.set_result(None)
        return not self._cause

    def _digest(self, role: bytes, own: bytes, other: bytes) -> bytes:
        return hmac.digest(self._secret, role + own + other, "sha256")

    def _take_messages(self) -> None:
        buffer, start = self._buffer, 0
        try:
            while len(buffer) - start >= _LENGTH.size and not self._cause:
                (length,) = _LENGTH.unpack_from(buffer, start)
                if not 0 < length <= MAX_MESSAGE:
                    raise _NoMessage(f"it sends a message of {length} bytes")
                begin = start + _LENGTH.size
                if len(buffer) - begin < length:
                    return
                start = begin + length
                body = bytes(memoryview(buffer)[begin:start])
                number, items, acks = msgpack.unpackb(body, strict_map_key=False)
                if number != self._taken:
                    raise _NoMessage(f"message {number!r} came in place of message {self._taken}")
                self._taken += 1
                self._take(items, acks)
        finally:
            del buffer[:start]


class _NoMessage(Exception):
    """The other end would not send this."""


def tune(sock: socket.socket, lost_after: float) -> None:
    """Send small items at once, and have the kernel probe the other machine while it is silent.

    Args:
        sock: A TCP socket.
        lost_after: Seconds of silence after which the machine is lost, and in which it is probed
            three times.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    every = max(1, int(lost_after / 3))
    for name, value in (
        ("TCP_KEEPIDLE", every),
        ("TCP_KEEPINTVL", every),
        ("TCP_KEEPCNT", max(2, round(lost_after / every) - 1)),
        ("TCP_NOTSENT_LOWAT", ROOM),  # so that little is queued ahead of small items
    ):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


# Of Linux's `struct tcp_info`: eight bytes, then words of four.
_INFO = struct.Struct("8B13I")
_PROBES, _UNACKED, _LAST_DATA, _LAST_ACK = 3, 8 + 4, 8 + 11, 8 + 12


def silence_of(sock: socket.socket) -> float:
    """Return for how many seconds a machine has not answered; 0: there is nothing to answer.

    It has to answer unacknowledged data, or two probes: a single one may be on its way.

    Raises:
        OSError: The socket is closed.
    """
    if sys.platform != "linux":
        return 0.0  # the kernel's own count of probes ends the connection
    info = _INFO.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size))
    if not info[_UNACKED] and info[_PROBES] < 2:
        return 0.0
    return float(min(info[_LAST_DATA], info[_LAST_ACK])) / 1000


_open: weakref.WeakSet[Messages] = weakref.WeakSet()


def _let_go_of_all() -> None:
    """Close the sockets in a forked child: they must end with its parent."""
    for messages in list(_open):
        messages._socket.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_of_all)
