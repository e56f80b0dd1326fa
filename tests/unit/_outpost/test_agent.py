"""An outpost on its node: whom it admits, and the bytes of its workers, which are faked here."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import pickle
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from turning import until

from aioscheduler._outpost import agent
from aioscheduler._outpost.agent import RelayPipe, serve
from aioscheduler._outpost.messages import Item, Messages
from aioscheduler._outpost.outgoing import WINDOW
from aioscheduler._outpost.versions import versions
from aioscheduler._processes.workerconfig import WorkerConfig
from aioscheduler._scheduling.order import Order

SECRET = b"s" * 32
CONFIG = WorkerConfig(
    manager="m", order=Order.TIMED, layout=(2, 2), prefer_utc=True, host=0, worker=1
)


class Worker:
    """A fake `LocalWorkerHandle`: the other ends of its pipe are here."""

    made: list[Worker]
    fails = False

    def __init__(
        self,
        config: Any,
        loop_initializer: Any,
        alive: Any,
        number: int,
        receive: Any,
        ended: Any,
        make_pipe: Any,
    ) -> None:
        self.config, self.loop_initializer, self.number = config, loop_initializer, number
        self.alive, self.ended = alive, ended
        self.ends: list[int] = []
        self.pid: int | None = os.getpid()
        self.schedulers = config.schedulers
        self.pipe: RelayPipe = make_pipe(receive, lambda error: None)
        self.unreadable = False

    def start(self, loop: Any) -> None:
        if Worker.fails:
            raise OSError("no room for a process")
        reader, self.writer = os.pipe()
        self.reader, writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.set_blocking(self.writer, False)
        self.pipe.open(loop, reader, writer)
        self.alive[self] = self.pipe.descriptors
        Worker.made.append(self)

    def begun(self, scheduler: int) -> tuple[int, int]:
        if self.unreadable:
            raise ValueError("it is closed")
        return scheduler, 10 + scheduler

    def blocked(self) -> tuple[int, int]:
        return 1, 2

    def kill(self) -> None:
        if self in self.alive:
            asyncio.get_running_loop().call_soon(self.end, -9, "")

    def end(self, exitcode: int, cause: str) -> None:
        if self.alive.pop(self, None) is not None:
            self.pipe.read_rest()
            self.pipe.close()
            os.close(self.reader)
            os.close(self.writer)
            self.ended(exitcode, cause)


class Host:
    """A fake host's end of the connection."""

    def __init__(self) -> None:
        self.items: list[list[Any]] = []
        self.acks: dict[int, list[int]] = {}
        self.lost: list[str] = []
        self.where: list[tuple[str, int]] = []
        self.messages: Messages | None = None
        self.serving: asyncio.Task[None] | None = None

    def serve(self, ports: tuple[int, int] | None = None) -> None:
        self.serving = asyncio.create_task(
            serve(SECRET, "127.0.0.1", ports, "v1", None, lambda *at: self.where.append(at))
        )

    async def connect(self) -> None:
        self.serve()
        await until(lambda: self.where)
        await self.knock()

    async def knock(self) -> None:
        sock = socket.create_connection(self.where[0])
        sock.setblocking(False)
        made = Messages(sock, SECRET, b"host", self.take, lambda: None, self.lost.append)
        await asyncio.get_running_loop().create_connection(lambda: made, sock=sock)
        self.messages = made
        await made.proven

    def take(self, items: list[Any], acks: dict[int, list[int]]) -> None:
        self.items += items
        self.acks |= acks

    def send(self, *items: Any, acks: Any = None) -> None:
        assert self.messages is not None
        self.messages.send(list(items), acks or {})

    def told(self, kind: Item) -> list[list[Any]]:
        return [item for item in self.items if item[0] == kind]

    async def start(self, worker: int = 1, number: int = 0) -> Worker:
        before = len(Worker.made)
        self.send([Item.START, worker, number, pickle.dumps(CONFIG), None])
        await until(lambda: len(Worker.made) > before)
        return Worker.made[-1]

    async def close(self) -> None:
        if self.messages is not None:
            self.messages.abort("the test is over")
        elif self.serving is not None:
            self.serving.cancel()
        if self.serving is not None:
            await asyncio.wait([self.serving])


@pytest.fixture
async def host(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    Worker.made, Worker.fails = [], False
    monkeypatch.setattr(agent, "LocalWorkerHandle", Worker)
    made = Host()
    yield made
    await made.close()
    await asyncio.sleep(0.01)


async def test_versions_are_the_first_item_to_the_host(host: Host) -> None:
    await host.connect()
    await until(lambda: host.items)
    assert host.items[0] == [Item.HELLO, versions("v1")]


async def test_the_end_of_the_host_is_the_end_of_its_workers(host: Host) -> None:
    await host.connect()
    workers = [await host.start(0), await host.start(1)]
    await host.close()
    assert host.serving is not None
    assert host.serving.exception() is None
    assert not any(worker in worker.alive for worker in workers)


async def test_strangers_are_refused_and_the_host_comes_in_all_the_same(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.serve()
    await until(lambda: host.where)
    strangers = [socket.create_connection(host.where[0]) for _ in range(5)]
    strangers[0].close()
    strangers[1].sendall(b"GET / HTTP/1.1\r\nHost: somebody\r\n\r\n" * 4)
    strangers[2].sendall(b"n" * 32 + b"no proof" * 4)
    strangers[3].shutdown(socket.SHUT_WR)
    await until(lambda: caplog.text.count("was refused") >= 3)
    await host.knock()
    await until(lambda: host.items)
    for stranger in strangers:
        stranger.close()
    await host.start()
    assert not host.lost


async def test_a_second_host_cannot_connect(host: Host) -> None:
    await host.connect()
    await until(lambda: host.items)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(host.where[0])


async def test_without_a_host_it_ends(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "HOST_TIME", 0.02)
    host.serve()
    assert host.serving is not None
    await asyncio.wait_for(host.serving, 10)


async def test_it_takes_the_first_of_its_ports_that_is_free(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        host.serve((port, port + 20))
        await until(lambda: host.where)
        assert port < host.where[0][1] <= port + 20
        with pytest.raises(OSError, match="in use"):
            await serve(SECRET, "127.0.0.1", (port, port), None, None, print)  # type: ignore[arg-type]


async def test_a_process_is_started_as_it_was_ordered_with_this_as_its_host(host: Host) -> None:
    await host.connect()
    worker = await host.start(1, 3)
    assert worker.config == dataclasses.replace(CONFIG, host=os.getpid())
    assert (worker.number, worker.loop_initializer) == (3, None)
    await until(lambda: host.told(Item.STARTED))
    assert host.told(Item.STARTED) == [[Item.STARTED, 1, 3, os.getpid()]]


async def test_a_process_that_cannot_start_is_reported_as_ended(host: Host) -> None:
    await host.connect()
    Worker.fails = True
    host.send([Item.START, 1, 3, pickle.dumps(CONFIG), b"loop"], [Item.DATA, 1, 3, b"for nobody"])
    await until(lambda: host.told(Item.ENDED))
    cause = "it cannot be started: no room for a process"
    assert host.told(Item.ENDED) == [[Item.ENDED, 1, 3, None, cause, None, None]]


async def test_bytes_go_both_ways_as_they_are(host: Host) -> None:
    await host.connect()
    worker = await host.start()
    host.send([Item.DATA, 1, 0, b"to "], [Item.DATA, 1, 0, b"it"])
    host.send([Item.DATA, 1, 9, b"to another life"], [Item.DATA, 7, 0, b"to nobody"])
    os.write(worker.writer, b"of it")
    await until(lambda: host.told(Item.DATA))
    assert os.read(worker.reader, 100) == b"to it"
    assert host.told(Item.DATA) == [[Item.DATA, 1, 0, b"of it"]]
    host.send([Item.CLOCK, 1])  # acks ride on the answer
    await until(lambda: host.acks.get(1) == [0, 5])


async def test_the_end_of_a_process_comes_behind_all_it_wrote(host: Host) -> None:
    await host.connect()
    worker = await host.start()
    os.write(worker.writer, b"last words")
    worker.end(-11, "Segmentation fault")
    await until(lambda: host.told(Item.ENDED))
    data, ended = host.items[-2:]
    assert data == [Item.DATA, 1, 0, b"last words"]
    assert ended == [
        *(Item.ENDED, 1, 0, -11, "Segmentation fault"),
        *([[0, 10], [1, 11]], [1, 2]),
    ]


async def test_a_box_that_cannot_be_read_says_nothing(host: Host) -> None:
    await host.connect()
    worker = await host.start()
    worker.unreadable = True
    worker.end(-9, "")
    await until(lambda: host.told(Item.ENDED))
    assert host.told(Item.ENDED)[0][5:] == [None, None]


async def test_a_kill_is_answered_at_once_also_of_one_that_is_gone(host: Host) -> None:
    await host.connect()
    worker = await host.start()
    host.send([Item.KILL, 1, 0], [Item.KILL, 1, 5])
    await until(lambda: len(host.told(Item.KILLED)) == 2 and host.told(Item.ENDED))
    assert worker not in worker.alive
    kinds = [item[0] for item in host.items]
    assert kinds.index(Item.KILLED) < kinds.index(Item.ENDED)


async def test_the_end_of_a_former_life_is_not_that_of_the_next(host: Host) -> None:
    await host.connect()
    former = await host.start(1, 0)
    latter = await host.start(1, 1)
    former.end(-9, "")
    host.send([Item.DATA, 1, 1, b"hello"])
    await until(lambda: _holds(latter.reader))
    assert os.read(latter.reader, 100) == b"hello"


def _holds(fd: int) -> bool:
    import select

    return bool(select.select([fd], [], [], 0)[0])


async def test_the_clock_is_answered_with_what_was_asked(host: Host) -> None:
    await host.connect()
    host.send([Item.CLOCK, 17])
    await until(lambda: host.told(Item.CLOCK))
    _, asked, there, of_day = host.told(Item.CLOCK)[0]
    assert asked == 17
    assert there < of_day


async def test_no_more_of_a_worker_is_under_way_than_a_window(host: Host) -> None:
    await host.connect()
    worker, other = await host.start(0), await host.start(1)
    sent = 0

    def push() -> None:
        nonlocal sent
        with suppress(BlockingIOError):
            while True:
                sent += os.write(worker.writer, b"x" * 65_536)

    for _ in range(400):
        push()
        await asyncio.sleep(0.001)
    got = sum(len(item[3]) for item in host.told(Item.DATA))
    assert WINDOW <= got < WINDOW + 300_000
    os.write(other.writer, b"still here")
    await until(lambda: [Item.DATA, 1, 0, b"still here"] in host.items)
    host.send(acks={0: [0, got]})
    await until(lambda: sum(len(item[3]) for item in host.told(Item.DATA)) > got)


async def test_the_usage_of_processes_is_reported(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "next_tick", lambda now: now + 0.01)
    await host.connect()
    await host.start()
    await until(lambda: host.told(Item.USAGE))
    _, worker, number, cpu, rss = host.told(Item.USAGE)[0]
    assert (worker, number) == (1, 0)
    assert cpu >= 0
    assert rss > 1 << 20


async def test_silence_of_the_hosts_machine_is_its_end(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "next_tick", lambda now: now + 0.01)
    monkeypatch.setattr(Messages, "silence", lambda _: 3.0)
    await host.connect()
    await asyncio.sleep(0.05)
    assert not host.lost  # WELCOME, which says how long is too long, has not come
    host.send([Item.WELCOME, 4.0])
    await asyncio.sleep(0.05)
    assert not host.lost
    host.send([Item.WELCOME, 2.0])
    await until(lambda: host.lost)
    assert host.serving is not None
    await asyncio.wait([host.serving])


@pytest.mark.parametrize("item", [[99], [Item.START, 0], [Item.DATA], 7])
async def test_an_invalid_item_ends_the_outpost(host: Host, item: Any) -> None:
    await host.connect()
    host.send(item)
    await until(lambda: host.lost)
