"""The host's side of one outpost, with a fake outpost."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from turning import until

from aioscheduler._outpost import connection as module
from aioscheduler._outpost.connection import Connection
from aioscheduler._outpost.messages import Item, Messages
from aioscheduler._outpost.versions import versions

HERE = versions(None)


class Pipe:
    def __init__(self) -> None:
        self.arrived: list[bytes] = []
        self.acked = 0
        self.goes = 0
        self.waiting = 1

    def arrive(self, data: bytes) -> None:
        self.arrived.append(data)

    def acknowledge(self, total: int) -> None:
        self.acked = total

    def go_on(self) -> None:
        self.goes += 1


class Process:
    """A worker handle that records its calls."""

    def __init__(self, worker: int = 0, generation: int = 0) -> None:
        self.worker, self.generation = worker, generation
        self.pid: int | None = None
        self.usage: Any = None
        self.pipe = Pipe()
        self.leads: list[int] = []
        self.ends: list[tuple[Any, ...]] = []
        self.shared: object = None

    def order(self, lead: int) -> tuple[bytes, None]:
        self.leads.append(lead)
        return b"config", None

    def set_lead(self, lead: int) -> None:
        self.leads.append(lead)

    def finish(self, *fields: Any, shared: object = None) -> None:
        self.ends.append(fields)
        self.shared = shared


class FarEnd:
    """A fake outpost.

    Attributes:
        items: The items it received, except those of the clock.
        ahead: How far its clock is ahead of the host's.
    """

    def __init__(self) -> None:
        self.items: list[list[Any]] = []
        self.ahead = 5_000_000_000
        self.wrong = 0
        self.hello: dict[str, Any] = dict(HERE)
        self.lost: list[str] = []
        self.messages: Messages | None = None
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.address: tuple[str, int] = self.listener.getsockname()

    async def admit(self, secret: bytes) -> None:
        loop = asyncio.get_running_loop()
        sock, _ = await loop.sock_accept(self.listener)
        made = Messages(sock, secret, b"node", self.take, lambda: None, self.lost.append)
        await loop.connect_accepted_socket(lambda: made, sock)
        self.messages = made
        await made.proven
        self.send([Item.HELLO, self.hello])

    def take(self, items: list[Any], acks: Any) -> None:
        for item in items:
            if item[0] == Item.CLOCK:
                now = time.monotonic_ns() + self.ahead
                self.send([Item.CLOCK, item[1], now, time.time_ns() + self.wrong])
            else:
                self.items.append(item)

    def send(self, *items: Any, acks: Any = None) -> None:
        assert self.messages is not None
        self.messages.send(list(items), acks or {})

    def told(self, kind: Item) -> list[list[Any]]:
        return [item for item in self.items if item[0] == kind]


class Stage:
    def __init__(self, **options: Any) -> None:
        self.far = FarEnd()
        self.overs: list[Connection] = []
        self.connection = Connection(
            asyncio.get_running_loop(),
            HERE,
            options.get("lost_after", 15.0),
            options.get("fenced", False),
            None,
            self.overs.append,
        )
        self.tasks: list[asyncio.Task[None]] = []

    def tell(self) -> None:
        self.tasks.append(asyncio.create_task(self.far.admit(self.connection.secret)))
        self.connection.started(*self.far.address, "n1")

    async def connect(self, *processes: Any) -> None:
        for process in processes:
            self.connection.add(process)
        self.tell()
        await until(
            lambda: self.connection.has_room and len(self.far.told(Item.START)) == len(processes)
        )

    async def close(self) -> None:
        self.connection.lost("the test is over")
        if self.far.messages is not None:
            self.far.messages.abort("the test is over")
        for task in self.tasks:
            task.cancel()
        await asyncio.sleep(0.02)
        self.far.listener.close()


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    await made.close()


@pytest.fixture
async def fenced() -> AsyncIterator[Stage]:
    made = Stage(fenced=True)
    yield made
    await made.close()


async def test_processes_requested_before_it_is_up_are_started_then(stage: Stage) -> None:
    early, late = Process(0), Process(1)
    stage.connection.add(early)  # type: ignore[arg-type]
    assert not stage.connection.has_room
    stage.tell()
    await until(lambda: early.leads)
    stage.connection.add(late)  # type: ignore[arg-type]
    await until(lambda: len(stage.far.told(Item.START)) == 2)
    assert stage.far.items == [
        [Item.WELCOME, 15.0],
        [Item.START, 0, 0, b"config", None],
        [Item.START, 1, 0, b"config", None],
    ]
    assert early.pipe.goes == 1
    assert stage.connection.node == "n1"


async def test_the_lead_is_never_early_and_no_later_than_the_way_took(stage: Stage) -> None:
    process = Process()
    before = time.monotonic_ns()
    await stage.connect(process)
    took = time.monotonic_ns() - before
    exact = time.time_ns() - time.monotonic_ns() - stage.far.ahead
    assert exact - took - 10**6 < process.leads[0] <= exact + 50_000  # NTP may steer meanwhile


async def test_a_node_clock_that_gains_is_corrected(stage: Stage) -> None:
    process = Process()
    await stage.connect(process)
    stage.far.ahead += 10**9  # it runs too fast, by far
    for _ in range(module.SAMPLES * 3):  # until the former measurements are forgotten
        stage.connection.look_after()
        await asyncio.sleep(0.002)
    assert process.leads[-1] < process.leads[0] - 9 * 10**8


async def test_a_host_clock_that_is_set_is_passed_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process()
    await stage.connect(process)
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 3600 * 10**9)
    stage.connection.look_after()
    monkeypatch.undo()
    assert 3599 * 10**9 < process.leads[-1] - process.leads[0] < 3601 * 10**9


async def test_a_wrong_time_of_day_is_said_once(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.far.wrong = -3 * 10**9
    await stage.connect(Process())
    assert caplog.text.count("the time of day on node n1 is -3.00 s off") == 1


async def test_items_find_their_life_and_a_former_one_is_dropped(stage: Stage) -> None:
    process = Process(0, 2)
    await stage.connect(process)
    stage.far.send(
        [Item.STARTED, 0, 2, 4711],
        [Item.DATA, 0, 1, b"late"],
        [Item.DATA, 0, 2, b"one"],
        [Item.DATA, 5, 2, b"whose"],
        [Item.USAGE, 0, 2, 50.0, 1 << 20],
        [Item.ENDED, 0, 1, -9, "", None, None],
        acks={0: [1, 99], 5: [0, 1]},
    )
    stage.far.send([Item.DATA, 0, 2, b"two"], acks={0: [2, 10]})
    await until(lambda: len(process.pipe.arrived) == 2)
    assert process.pipe.arrived == [b"one", b"two"]
    assert (process.pid, process.usage, process.pipe.acked) == (4711, (50.0, 1 << 20), 10)
    assert not process.ends
    stage.far.send([Item.ENDED, 0, 2, -9, "why", [[1, 0]], [0, 0]], [Item.DATA, 0, 2, b"late"])
    await until(lambda: process.ends)
    assert process.ends == [(-9, "why", [[1, 0]], [0, 0])]
    assert process.shared is None
    assert not stage.connection.cause


async def test_the_end_of_the_stream_is_the_end_of_all_there_by_one_cause(stage: Stage) -> None:
    processes = [Process(worker) for worker in range(8)]
    await stage.connect(*processes)
    stage.far.messages.abort("")  # type: ignore[union-attr]
    await until(lambda: stage.overs)
    assert all(len(process.ends) == 1 for process in processes)
    assert {process.shared for process in processes} == {stage.connection.end}
    assert all(process.ends[0][0] is None for process in processes)
    assert processes[0].ends[0][1].startswith("node n1 is lost: ")


@pytest.mark.parametrize("item", [[77, 0, 0], [Item.USAGE, 0, 0], [], 5, [Item.CLOCK, 1]])
async def test_an_invalid_item_ends_the_connection(stage: Stage, item: Any) -> None:
    process = Process()
    await stage.connect(process)
    stage.far.send(item)
    await until(lambda: process.ends)
    assert "cannot be handled" in process.ends[0][1]


async def test_another_version_is_reported_and_nothing_is_started(stage: Stage) -> None:
    process = Process()
    stage.far.hello["python"] = "3.8"
    stage.connection.add(process)  # type: ignore[arg-type]
    stage.tell()
    await until(lambda: process.ends)
    assert "node n1 has Python 3.8, and this host has" in process.ends[0][1]
    assert not stage.far.told(Item.START)


async def test_a_refused_connection_says_what_to_check(stage: Stage) -> None:
    process = Process()
    stage.connection.add(process)  # type: ignore[arg-type]
    host, port = stage.far.listener.getsockname()
    stage.far.listener.close()
    stage.connection.started(host, port, "n1")
    await until(lambda: process.ends)
    assert f"{host}:{port} cannot be reached" in process.ends[0][1]
    assert "look at firewalls, and at ports=" in process.ends[0][1]


async def test_one_who_does_not_answer_the_call_is_given_up(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONNECT_TIME", 0.05)
    process = Process()
    stage.connection.add(process)  # type: ignore[arg-type]
    stage.connection.started(*stage.far.address, "n1")  # whom nobody admits
    await until(lambda: process.ends)
    assert "no answer of its outpost" in process.ends[0][1]


async def test_cancelling_all_tasks_only_ends_connections_being_opened(
    stage: Stage,
) -> None:
    """The slot requests another."""
    process = Process()
    stage.connection.add(process)  # type: ignore[arg-type]
    stage.connection.started(*stage.far.address, "n1")  # whom nobody admits
    await asyncio.sleep(0.01)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await until(lambda: process.ends)
    assert "was cancelled" in process.ends[0][1]
    assert stage.overs == [stage.connection]


async def test_one_that_does_not_know_the_secret_is_refused(stage: Stage) -> None:
    process = Process()
    stage.connection.add(process)  # type: ignore[arg-type]
    stage.tasks.append(asyncio.create_task(stage.far.admit(b"another")))
    stage.connection.started(*stage.far.address, "n1")
    await until(lambda: process.ends)
    assert not stage.far.items
    await asyncio.wait(stage.tasks)
    assert isinstance(stage.tasks[0].exception(), OSError)


async def test_the_launchers_word_ends_it_and_says_why(stage: Stage) -> None:
    process, waits = Process(0), Process(1)
    await stage.connect(process)
    stage.connection.add(waits)  # type: ignore[arg-type]
    stage.connection.reported_lost("its actor was killed")
    assert not process.ends  # never within the call
    await until(lambda: process.ends and waits.ends)
    assert process.ends == [(None, "node n1 is lost: its actor was killed")]
    assert stage.overs == [stage.connection]


async def test_an_outpost_that_never_started_has_no_node(stage: Stage) -> None:
    process = Process()
    stage.connection.add(process)  # type: ignore[arg-type]
    stage.connection.reported_lost("there is no aioscheduler")
    await until(lambda: process.ends)
    assert process.ends == [(None, "there is no aioscheduler")]


async def test_silence_of_its_machine_is_its_end(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process()
    await stage.connect(process)
    monkeypatch.setattr(Messages, "silence", lambda _: 14.9)
    stage.connection.look_after()
    assert not stage.connection.cause
    monkeypatch.setattr(Messages, "silence", lambda _: 15.1)
    stage.connection.look_after()
    await until(lambda: process.ends)
    assert "nothing has been heard of its machine for 15 s" in process.ends[0][1]


# ---- kills


async def test_a_kill_is_sent_and_answered(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KILL_TIME", 0.05)
    process, other = Process(0), Process(1)
    await stage.connect(process, other)
    for _ in range(2):
        stage.connection.kill(process)  # type: ignore[arg-type]
    await until(lambda: stage.far.told(Item.KILL))
    assert stage.far.told(Item.KILL) == [[Item.KILL, 0, 0]]
    stage.far.send([Item.KILLED, 0, 0])
    await asyncio.sleep(0.1)
    assert not stage.connection.cause  # it takes long to die, which is the outpost's concern
    stage.far.send([Item.ENDED, 0, 0, -9, "", [[0, 0]], None])
    await until(lambda: process.ends)
    assert not other.ends


async def test_a_kill_without_an_answer_is_the_end_of_the_node(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KILL_TIME", 0.05)
    process, other = Process(0), Process(1)
    await stage.connect(process, other)
    stage.connection.kill(process)  # type: ignore[arg-type]
    await until(lambda: process.ends and other.ends)
    assert "it has not answered the kill of a worker" in process.ends[0][1]
    assert process.shared is other.shared is stage.connection.end


async def test_a_host_that_was_blocked_gives_the_answer_its_time(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KILL_TIME", 0.1)
    process = Process(0)
    await stage.connect(process)
    stage.connection.kill(process)  # type: ignore[arg-type]
    time.sleep(0.3)  # noqa: ASYNC251  a host that does something else
    await until(lambda: stage.far.told(Item.KILL))
    stage.far.send([Item.KILLED, 0, 0])
    await asyncio.sleep(0.05)
    assert not stage.connection.cause


async def test_a_process_never_started_is_withdrawn(stage: Stage) -> None:
    one, two = Process(0), Process(1)
    for process in (one, two):
        stage.connection.add(process)  # type: ignore[arg-type]
    stage.connection.kill(one)  # type: ignore[arg-type]
    assert not one.ends
    await until(lambda: one.ends)
    assert not stage.overs
    stage.connection.kill(two)  # type: ignore[arg-type]
    await until(lambda: two.ends and stage.overs)


# ---- fences


async def test_where_tasks_run_again_the_end_waits_for_the_launchers_word(fenced: Stage) -> None:
    process = Process()
    await fenced.connect(process)
    fenced.far.messages.abort("")  # type: ignore[union-attr]
    await until(lambda: fenced.connection.cause)
    await asyncio.sleep(0.05)
    assert not process.ends
    fenced.connection.kill(process)  # type: ignore[arg-type]  # which changes nothing
    assert not process.ends
    fenced.connection.reported_lost("it is dead")
    assert len(process.ends) == 1


async def test_if_the_launcher_is_the_first_to_say_it_nothing_waits(fenced: Stage) -> None:
    process = Process()
    await fenced.connect(process)
    fenced.connection.reported_lost("it is dead")
    await until(lambda: process.ends)


async def test_or_until_the_other_side_has_noticed_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FENCE_MARGIN", 0.05)
    stage, process = Stage(fenced=True, lost_after=0.05), Process()
    await stage.connect(process)
    stage.far.messages.abort("")  # type: ignore[union-attr]
    await until(lambda: process.ends)
    await stage.close()


async def test_or_until_nothing_will_run_again(fenced: Stage) -> None:
    process = Process()
    await fenced.connect(process)
    fenced.far.messages.abort("")  # type: ignore[union-attr]
    await until(lambda: fenced.connection.cause)
    fenced.connection.unfence()
    assert len(process.ends) == 1


async def test_an_outpost_that_never_began_waits_for_nothing(fenced: Stage) -> None:
    process = Process()
    fenced.connection.add(process)  # type: ignore[arg-type]
    fenced.connection.reported_lost("no room")
    await until(lambda: process.ends)


# ---- room


async def test_processes_waiting_for_room_take_turns(stage: Stage) -> None:
    processes = [Process(worker) for worker in range(3)]
    await stage.connect(*processes)
    order: list[int] = []

    def goes(process: Process) -> None:
        order.append(process.worker)
        stage.connection._messages.has_room = False  # type: ignore[union-attr]

    for process in processes:
        process.pipe.go_on = lambda process=process: goes(process)  # type: ignore[method-assign, misc]
    for _ in range(3):
        stage.connection._messages.has_room = True  # type: ignore[union-attr]
        stage.connection._go_on()
    assert order == [0, 1, 2]
    processes[0].pipe.waiting = 0
    stage.connection._messages.has_room = True  # type: ignore[union-attr]
    stage.connection._go_on()
    assert order[3:] == [1]
