"""One connection: its proof, its framing, and what ends it."""

from __future__ import annotations

import asyncio
import hmac
import os
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from turning import until

from aioscheduler._outpost import messages as module
from aioscheduler._outpost.messages import MAX_MESSAGE, ROOM, Messages, silence_of, tune

SECRET = b"s" * 32


class End:
    """One end, and what it has received."""

    def __init__(self, sock: socket.socket, role: bytes, secret: bytes = SECRET) -> None:
        self.took: list[Any] = []
        self.lost: list[str] = []
        self.rooms = 0
        self.raises: Exception | None = None
        self.messages = Messages(sock, secret, role, self.take, self.room, self.lost.append)
        self.sock = sock

    def take(self, items: Any, acks: Any) -> None:
        if self.raises is not None:
            raise self.raises
        self.took.append((items, acks))

    def room(self) -> None:
        self.rooms += 1

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self.messages, sock=self.sock)


class Raw:
    """A fake other end."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.loop = asyncio.get_running_loop()

    async def read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = await self.loop.sock_recv(self.sock, count - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    async def write(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.sock, data)

    async def prove(self, role: bytes = b"host", secret: bytes = SECRET) -> None:
        mine = b"n" * 32
        theirs = await self.read(32)
        await self.write(mine + hmac.digest(secret, role + mine + theirs, "sha256"))
        await self.read(32)

    async def send(self, number: int, items: list[Any]) -> None:
        body = msgpack.packb([number, items, {}])
        await self.write(len(body).to_bytes(4, "big") + body)


@pytest.fixture
async def sockets() -> AsyncIterator[tuple[socket.socket, socket.socket]]:
    pair = socket.socketpair()
    for sock in pair:
        sock.setblocking(False)
    yield pair
    await asyncio.sleep(0.01)  # aborted connections end in the next turn
    for sock in pair:
        sock.close()


@pytest.fixture
async def ends(sockets: Any) -> tuple[End, End]:
    host, node = End(sockets[0], b"host"), End(sockets[1], b"node")
    await host.connect()
    await node.connect()
    await asyncio.gather(host.messages.proven, node.messages.proven)
    return host, node


@pytest.fixture
async def proven(sockets: Any) -> tuple[Raw, End]:
    node, raw = End(sockets[1], b"node"), Raw(sockets[0])
    await node.connect()
    await raw.prove()
    await node.messages.proven
    return raw, node


async def test_messages_arrive_as_they_were_and_in_order(ends: tuple[End, End]) -> None:
    host, node = ends
    for n in range(50):
        host.messages.send([[9, n, b"x" * n]], {n: [1, 2]})
    node.messages.send([[4, {"python": "3"}]], {})
    await until(lambda: len(node.took) == 50 and host.took)
    assert node.took == [([[9, n, b"x" * n]], {n: [1, 2]}) for n in range(50)]
    assert host.took == [([[4, {"python": "3"}]], {})]
    host.messages.abort("it is over")
    await until(lambda: node.lost and host.lost)
    assert host.lost == ["it is over"]
    assert len(node.lost) == 1


@pytest.mark.parametrize("cut", [1, 7, 32, 33, 64])
async def test_bytes_may_come_however_they_were_split(proven: tuple[Raw, End], cut: int) -> None:
    raw, node = proven
    stream = b""
    for number in range(10):
        body = msgpack.packb([number, [number], {}])
        stream += len(body).to_bytes(4, "big") + body
    for start in range(0, len(stream), cut):
        node.messages.data_received(stream[start : start + cut])
    assert [items for items, _ in node.took] == [[number] for number in range(10)]
    raw.sock.close()
    await until(lambda: node.lost)


@pytest.mark.parametrize("role", [b"host", b"node"])
async def test_a_wrong_secret_is_refused_and_nothing_was_read(sockets: Any, role: bytes) -> None:
    node, raw = End(sockets[1], b"node"), Raw(sockets[0])
    await node.connect()
    with suppress(EOFError, OSError):
        await raw.prove(role, SECRET if role == b"node" else b"wrong")
        await raw.send(0, [[1]])
    with pytest.raises(OSError, match="does not know the secret"):
        await node.messages.proven
    await asyncio.sleep(0.01)
    assert (node.took, node.lost) == ([], [])


async def test_ones_own_proof_sent_back_is_none(sockets: Any) -> None:
    node, raw = End(sockets[1], b"node"), Raw(sockets[0])
    await node.connect()
    await raw.write(await raw.read(32))  # its own nonce
    await raw.write(await raw.read(32))  # its own proof
    with pytest.raises(OSError, match="does not know the secret"):
        await node.messages.proven


async def test_who_does_not_prove_itself_is_cut_off(
    sockets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PROOF_TIME", 0.01)
    node = End(sockets[1], b"node")
    await node.connect()
    with pytest.raises(OSError, match="does not prove itself"):
        await node.messages.proven
    assert not node.lost


async def test_who_is_connected_when_the_time_for_the_proof_is_over_is_cut_off(
    sockets: Any,
) -> None:
    """A slow TLS handshake causes that."""
    node, raw = End(sockets[1], b"node"), Raw(sockets[0])
    node.messages.abort("it does not prove itself")
    await node.connect()
    with pytest.raises(OSError, match="does not prove itself"):
        await node.messages.proven
    with pytest.raises(EOFError):
        await raw.read(1)


async def test_who_hangs_up_before_the_proof_ends_nothing(sockets: Any) -> None:
    node = End(sockets[1], b"node")
    await node.connect()
    sockets[0].close()
    with pytest.raises(OSError, match="other side closed it|reset by peer"):
        await node.messages.proven
    assert not node.lost


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ([1], "message 1 came in place of message 0"),
        ([0, 0], "message 0 came in place of message 1"),
        ([0, 2], "message 2 came in place of message 1"),
        (["x"], "message 'x' came"),
    ],
)
async def test_a_gap_or_a_repeat_ends_the_connection(
    proven: tuple[Raw, End], numbers: list[Any], said: str
) -> None:
    raw, node = proven
    for number in numbers:
        await raw.send(number, [])
    await until(lambda: node.lost)
    assert said in node.lost[0]


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\0\0",
        (MAX_MESSAGE + 1).to_bytes(4, "big"),
        b"\0\0\0\1\xc1",
        b"\0\0\0\1\x01",
        b"\0\0\0\2\x92\x00",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
async def test_an_invalid_message_ends_the_connection(proven: tuple[Raw, End], data: bytes) -> None:
    raw, node = proven
    await raw.write(data)
    await until(lambda: node.lost)
    assert not node.took
    assert "it sends" in node.lost[0]


async def test_an_error_in_a_message_ends_the_connection_and_no_further_one_is_read(
    ends: tuple[End, End],
) -> None:
    host, node = ends
    node.raises = KeyError("what is that")
    host.messages.send([1], {})
    host.messages.send([2], {})
    await until(lambda: node.lost and host.lost)
    assert "KeyError('what is that')" in node.lost[0]
    assert not node.took


async def test_a_sender_is_paused_and_resumed(
    ends: tuple[End, End],
) -> None:
    host, node = ends
    node.messages._transport.pause_reading()  # type: ignore[union-attr]
    sent = 0
    while host.messages.has_room:
        host.messages.send([b"x" * ROOM], {})
        sent += 1
    before = host.rooms
    node.messages._transport.resume_reading()  # type: ignore[union-attr]
    await until(lambda: host.messages.has_room and len(node.took) == sent)
    assert (before, host.rooms) == (0, 1)
    host.messages.abort("")
    await until(lambda: node.lost)


async def test_after_the_end_nothing_is_sent(ends: tuple[End, End]) -> None:
    host, node = ends
    host.messages.abort("over")
    host.messages.send([1], {})
    await until(lambda: host.lost and node.lost)
    host.messages.send([2], {})
    assert not node.took


async def test_a_forked_child_does_not_keep_it_open(ends: tuple[End, End]) -> None:
    host, node = ends
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(write)
        os.read(read, 1)  # lives until the test has ended
        os._exit(0)
    os.close(read)
    host.messages.let_go()
    await until(lambda: node.lost)
    os.close(write)
    os.waitpid(child, 0)
    host.messages.abort("")
    await until(lambda: host.lost)


async def test_a_cancelled_wait_does_not_prove_the_other_side(sockets: Any) -> None:
    node, raw = End(sockets[1], b"node"), Raw(sockets[0])
    await node.connect()
    node.messages.proven.cancel()  # as by a timeout
    await raw.write(b"n" * 32 + b"p" * 32)
    await raw.send(0, ["what a stranger wants"])
    await asyncio.sleep(0.01)
    assert not node.took
    assert not node.lost
    with pytest.raises((EOFError, OSError)):
        await raw.read(1000)


@pytest.mark.parametrize("replaced", [True, False])
async def test_a_descriptor_that_is_anothers_by_now_is_left_alone(
    ends: tuple[End, End], tmp_path: Path, replaced: bool
) -> None:
    host, node = ends
    host.messages.send([1], {})
    await until(lambda: node.took)
    fd = host.sock.fileno()
    with (tmp_path / "file").open("wb") as file:
        if replaced:
            os.dup2(file.fileno(), fd)
        else:
            os.close(fd)
        host.messages.send([2], {})
        await until(lambda: host.lost and node.lost)
        if replaced:
            os.close(fd)
    assert "closed or replaced by other code" in host.lost[0]
    assert (tmp_path / "file").read_bytes() == b""


async def test_the_kernel_probes_the_other_machine() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    one = socket.create_connection(listener.getsockname())
    other, _ = listener.accept()
    with listener, one, other:
        tune(one, 15.0)
        get = one.getsockopt
        assert get(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert get(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert get(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 5
            assert get(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 5
            assert get(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 2
        one.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                one.send(b"x" * ROOM)  # nobody reads it, but its machine answers
        assert silence_of(one) < 15.0
    with pytest.raises(OSError, match=r"."):
        silence_of(one)


@pytest.mark.parametrize(
    ("unacked", "probes", "data", "ack", "silence"),
    [
        (0, 0, 20_000, 30_000, 0.0),  # there is nothing to answer
        (0, 1, 20_000, 30_000, 0.0),  # the answer may be on its way
        (0, 2, 20_000, 30_000, 20.0),
        (3, 0, 20_000, 30_000, 20.0),
        (3, 0, 30_000, 40, 0.04),
    ],
)
def test_silence_needs_an_unanswered_probe(
    unacked: int, probes: int, data: int, ack: int, silence: float
) -> None:
    class Socket:
        def getsockopt(self, *args: Any) -> bytes:
            words = [0] * 13
            words[4], words[11], words[12] = unacked, data, ack
            head = [1, 0, 0, probes, 0, 0, 0, 0]
            return module._INFO.pack(*head, *words)

    sock: Any = Socket()
    assert silence_of(sock) == silence
