"""The launcher process, which is faked here: its lines, its ends, and the next one."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any, BinaryIO

import pytest
from turning import until

from aioscheduler._outpost import launcher as module
from aioscheduler._outpost.launcher import LONGEST_LINE, Launcher


class Process:
    """A fake `Popen`: two pipes, and an end."""

    made: list[Process]
    fails = False

    def __init__(self, command: list[str], **options: Any) -> None:
        if Process.fails:
            raise OSError("no such file")
        self.command, self.options = command, options
        self.returncode: int | None = None
        self.killed = False
        self.stops_with_input = True
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        self.stdin: BinaryIO = os.fdopen(ours_in, "wb", buffering=0)
        self.stdout: BinaryIO = os.fdopen(ours_out, "rb", buffering=0)
        self.theirs: list[int] = [theirs_in, theirs_out]
        os.set_blocking(theirs_in, False)
        self.heard = b""
        Process.made.append(self)

    def lines(self) -> list[Any]:
        """Return the lines it received so far."""
        try:
            while data := os.read(self.theirs[0], 1 << 16):
                self.heard += data
        except BlockingIOError:
            pass
        return [json.loads(line) for line in self.heard.splitlines()]

    def say(self, *lines: Any) -> None:
        for line in lines:
            data = line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n"
            while data:
                data = data[os.write(self.theirs[1], data) :]

    def poll(self) -> int | None:
        if self.stdin.closed and self.stops_with_input:
            self.end(0)
        return self.returncode

    def kill(self) -> None:
        self.killed = True
        self.end(-9)

    def end(self, status: int) -> None:
        if self.returncode is None:
            self.returncode = status
            for fd in self.theirs:
                os.close(fd)


class Asker:
    def __init__(self, secret: bytes = b"\x01\x02") -> None:
        self.secret = secret
        self.where: list[tuple[str, int, str]] = []
        self.losses: list[str] = []

    def started(self, *where: Any) -> None:
        self.where.append(where)

    def reported_lost(self, cause: str) -> None:
        self.losses.append(cause)


class Stage:
    def __init__(self) -> None:
        self.refusals: list[str] = []
        self.launcher = Launcher(["run", "it"], {"address": "a"}, self.refusals.append)

    def start(self) -> Process:
        self.launcher.start(asyncio.get_running_loop())
        return Process.made[-1]

    async def start_up(self) -> Process:
        process = self.start()
        process.say({"up": True})
        await until(lambda: self.launcher._up_once)
        return process

    async def next_one(self, count: int) -> Process:
        await until(lambda: len(Process.made) == count)
        return Process.made[-1]


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    Process.made, Process.fails = [], False
    monkeypatch.setattr("subprocess.Popen", Process)
    monkeypatch.setattr(module, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(module, "LONGEST_DELAY", 0.005)
    made = Stage()
    yield made
    await made.launcher.close()
    for process in Process.made:
        process.end(0)


async def test_settings_come_first_and_ctrl_c_does_not_reach_it(stage: Stage) -> None:
    process = stage.start()
    assert stage.start() is process
    assert process.command == ["run", "it"]
    assert process.options["process_group"] == 0
    asker = Asker()
    stage.launcher.ask(asker)
    assert process.lines() == [{"settings": {"address": "a"}}, {"start": 1, "secret": "0102"}]


async def test_an_asker_hears_of_start_and_end_once(stage: Stage) -> None:
    process = stage.start()
    one, two = Asker(), Asker()
    stage.launcher.ask(one)
    stage.launcher.ask(two)
    process.say(
        {"up": True},
        {"started": 1, "host": "10.0.0.1", "port": 7000, "node": "n1"},
        {"started": 1, "host": "10.0.0.9", "port": 1, "node": "twice"},
        {"started": 7, "host": "10.0.0.9", "port": 1, "node": "whose"},
        {"lost": 2, "text": "it cannot be had"},
        {"lost": 2, "text": "twice"},
        {"lost": 7, "text": "whose"},
        {"lost": 1, "text": "it is dead"},
    )
    await until(lambda: one.losses)
    assert one.where == [("10.0.0.1", 7000, "n1")]
    assert (one.losses, two.losses, two.where) == (["it is dead"], ["it cannot be had"], [])
    assert not stage.refusals


async def test_a_line_may_come_in_parts(stage: Stage) -> None:
    process, asker = stage.start(), Asker()
    stage.launcher.ask(asker)
    for part in (b'{"lo', b'st": 1, "text"', b': "no"}\n{"up"'):
        process.say(part)
        await asyncio.sleep(0.005)
    assert asker.losses == ["no"]


async def test_an_unneeded_outpost_is_ended_once(stage: Stage) -> None:
    process, started, pending = stage.start(), Asker(), Asker()
    stage.launcher.ask(started)
    stage.launcher.ask(pending)
    process.say({"started": 1, "host": "h", "port": 1, "node": "n"})
    await until(lambda: started.where)
    for asker in (started, pending, started):
        stage.launcher.end(asker)
    assert process.lines()[3:] == [{"end": 1}, {"end": 2}]
    process.say({"lost": 1, "text": "as it was asked"})
    await asyncio.sleep(0.01)
    assert not started.losses


async def test_who_waits_for_a_node_is_named_in_the_log(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    process, asker = stage.start(), Asker()
    stage.launcher.ask(asker)
    process.say({"waits": 1, "text": "8 CPUs are asked, and 2 free"}, {"waits": 5, "text": "whose"})
    await until(lambda: "8 CPUs are asked" in caplog.text)
    assert "whose" not in caplog.text
    assert not asker.losses


async def test_the_first_that_has_no_cluster_is_told(stage: Stage) -> None:
    process = stage.start()
    process.say({"refused": "no cluster at a"})
    await until(lambda: stage.refusals)
    assert stage.refusals == ["no cluster at a"]
    assert process.killed
    await asyncio.sleep(0.02)
    assert len(Process.made) == 1


async def test_the_end_of_the_first_launcher_is_reported(stage: Stage) -> None:
    stage.start().end(3)
    await until(lambda: stage.refusals)
    assert "(status 3); its output above says why" in stage.refusals[0]


async def test_the_first_that_cannot_be_run_raises(stage: Stage) -> None:
    Process.fails = True
    with pytest.raises(OSError, match="no such file"):
        stage.start()
    Process.fails = False
    stage.start()  # another attempt


async def test_one_that_does_not_say_whether_it_is_up_is_killed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UP_TIME", 0.01)
    process = stage.start()
    await until(lambda: stage.refusals)
    assert process.killed
    assert "has not said" in stage.refusals[0]


async def test_a_launcher_that_was_up_is_restarted_with_pending_requests(stage: Stage) -> None:
    first, has, misses = stage.start(), Asker(b"\x0a"), Asker(b"\x0b")
    stage.launcher.ask(has)
    stage.launcher.ask(misses)
    first.say({"up": True}, {"started": 1, "host": "h", "port": 1, "node": "n"})
    await until(lambda: has.where)
    first.end(-9)
    second = await stage.next_one(2)
    assert second.lines() == [{"settings": {"address": "a"}}, {"start": 3, "secret": "0b"}]
    second.say({"refused": "the head is still dead"})
    third = await stage.next_one(3)
    assert third.lines()[1:] == [{"start": 4, "secret": "0b"}]
    third.say({"up": True}, {"started": 4, "host": "h", "port": 2, "node": "n"})
    await until(lambda: misses.where)
    assert not (stage.refusals or has.losses or misses.losses)


async def test_it_is_tried_for_ever_if_it_was_up_once_and_said_ever_less_often(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    process = await stage.start_up()
    Process.fails = True
    process.end(1)
    await until(lambda: stage.launcher._failures == 20)
    assert caplog.text.count("cannot be started, and is tried again") == 4  # the 2nd, 4th, 8th …
    Process.fails = False
    process = await stage.next_one(2)
    assert not stage.refusals
    process.say({"up": True})
    await until(lambda: "the launcher is up again, after" in caplog.text)


async def test_while_the_head_is_dead_it_is_said_ever_less_often(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    process = await stage.start_up()
    process.end(1)
    for count in range(2, 22):
        process = await stage.next_one(count)
        process.say({"refused": "the head is still dead"})
    process = await stage.next_one(22)
    assert [record.getMessage().count("still dead") for record in caplog.records] == [0, 1, 1, 1, 1]
    process.say({"up": True})
    await until(lambda: "the launcher is up again, after 21 failures" in caplog.text)
    process.end(1)  # the next one is said again
    await stage.next_one(23)
    assert len(caplog.records) == 7


@pytest.mark.parametrize(
    "line",
    [
        b"Traceback (most recent call last):\n",
        b"{}\n",
        b"[]\n",
        b'{"lost": "x", "text": ""}\n',
        b'{"started": 1, "host": "h", "port": 1}\n',
        b"\xff\n",
    ],
)
async def test_a_launcher_that_writes_anything_else_is_killed_and_ignored(
    stage: Stage, line: bytes
) -> None:
    process, asker = stage.start(), Asker()
    stage.launcher.ask(asker)
    process.say({"up": True}, line + b'{"lost": 1, "text": "it says"}\n')
    await until(lambda: process.killed)
    second = await stage.next_one(2)
    assert not asker.losses
    assert second.lines()[1:] == [{"start": 2, "secret": "0102"}]


async def test_a_line_without_an_end_is_none(stage: Stage) -> None:
    process = stage.start()
    process.say({"up": True})
    pieces = [b"x" * 30_000] * (LONGEST_LINE // 30_000 + 2)
    for piece in pieces:
        if not process.killed:
            process.say(piece)
        await asyncio.sleep(0)
    await until(lambda: process.killed)


async def test_one_that_does_not_read_is_killed(stage: Stage) -> None:
    process = await stage.start_up()
    while not process.killed:
        stage.launcher.ask(Asker(b"s" * 1000))
    await stage.next_one(2)


async def test_close_ends_its_input_and_waits_for_its_end(stage: Stage) -> None:
    process = stage.start()
    await stage.launcher.close()
    assert (process.returncode, process.killed) == (0, False)
    assert process.stdout.closed
    await stage.launcher.close()
    stage.launcher.ask(Asker())
    assert len(Process.made) == 1


async def test_a_close_that_is_cancelled_goes_on_when_it_is_called_again(stage: Stage) -> None:
    process = stage.start()
    process.stops_with_input = False
    closing = asyncio.create_task(stage.launcher.close())
    await asyncio.sleep(0.02)
    closing.cancel()
    await asyncio.wait([closing])
    lived = process.returncode is None
    process.stops_with_input = True
    await stage.launcher.close()
    assert (lived, process.returncode, process.killed) == (True, 0, False)


async def test_one_that_does_not_end_is_killed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "END_TIME", 0.02)
    process = stage.start()
    process.stops_with_input = False
    await stage.launcher.close()
    assert process.killed
    assert "has not ended" in caplog.text


async def test_closed_between_two_processes_it_starts_none(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY", 0.05)
    monkeypatch.setattr(module, "LONGEST_DELAY", 0.05)
    process = await stage.start_up()
    process.end(1)
    await until(lambda: stage.launcher._process is None)
    await stage.launcher.close()
    await asyncio.sleep(0.1)
    assert len(Process.made) == 1


async def test_without_a_loop_it_is_ended_all_the_same(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_TIME", 0.02)
    process = stage.start()
    process.stops_with_input = False
    asyncio.get_running_loop().remove_reader(process.stdout.fileno())
    stage.launcher.abandon()
    assert not process.killed  # it may have something to withdraw
    assert process.stdin.closed
    assert process.stdout.closed
    stage.launcher.abandon()


async def test_a_forked_child_does_not_keep_it_alive(stage: Stage) -> None:
    process = stage.start()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(write)
        os.read(read, 1)  # lives until the test has ended
        os._exit(0)
    os.close(read)
    process.stdin.close()
    os.set_blocking(process.theirs[0], True)
    assert b"settings" in os.read(process.theirs[0], 1 << 16)
    assert os.read(process.theirs[0], 1) == b""  # no process holds it
    os.close(write)
    os.waitpid(child, 0)
