"""Records that workers log are handled by the host's logging, over real processes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from logged import (
    configure,
    fail_to_begin,
    flood_in_tasks,
    flood_in_thread,
    log_and_die,
    log_and_wait,
    log_in_forked_child,
    log_in_task,
    log_in_thread,
    square,
)

from aioscheduler import Manager, WorkerLost, WorkerStartError
from aioscheduler._processes.process import workers_module

COUNT = 100_000


class Arrived(logging.Handler):
    """Collect records of workers, without those of the host itself."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.raises: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if str(record.processName).startswith("aioscheduler-"):
            self.records.append(record)
            if self.raises is not None:
                raise self.raises

    @property
    def messages(self) -> list[str]:
        return [record.getMessage() for record in self.records if record.name != "asyncio"]

    async def until(self, message: str) -> None:
        async with asyncio.timeout(20):
            while message not in self.messages:
                await asyncio.sleep(0.01)


@pytest.fixture
def arrived() -> Iterator[Arrived]:
    handler = Arrived()
    level = logging.root.level
    logging.root.addHandler(handler)
    logging.root.setLevel(logging.INFO)
    logging.getLogger("logged.chatty").setLevel(logging.DEBUG)
    yield handler
    logging.root.removeHandler(handler)
    logging.root.setLevel(level)
    logging.getLogger("logged.chatty").setLevel(logging.NOTSET)


@pytest.mark.parametrize("log", [log_in_task, log_in_thread])
async def test_records_arrive_as_they_were_made(arrived: Arrived, log: Any, capfd: Any) -> None:
    async with Manager(workers=2, forward_logs=True) as manager:
        tasks = {key: manager.schedule(log(key), key=key) for key in ("a", "b", "c")}
        await asyncio.gather(*tasks.values())
        pids = [worker.pid for worker in manager.stats().workers]
    for key, task in tasks.items():
        worker = task.ref.worker  # type: ignore[union-attr]
        own = [record for record in arrived.records if record.getMessage().endswith(f" {key}")]
        info, failed, chatty = own
        assert [record.name for record in own] == ["logged", "logged", "logged.chatty"]
        assert [record.levelname for record in own] == ["INFO", "ERROR", "DEBUG"]
        assert {record.process for record in own} == {pids[worker]}
        assert {record.processName for record in own} == {f"aioscheduler-{manager._id}-{worker}"}
        assert info.request == 5  # type: ignore[attr-defined]
        assert not hasattr(info, "odd")
        assert info.filename == "logged.py"
        assert info.funcName == "log_all"
        assert info.created <= failed.created <= chatty.created
        assert logging.Formatter().format(failed).endswith("LookupError: é")
        named = f"thread of {key}" if log is log_in_thread else "MainThread"
        assert {record.threadName for record in own} == {named}
    assert manager.stats().logs_dropped == 0
    assert capfd.readouterr().err == ""


async def test_an_initializer_may_set_levels_and_take_the_handler_away(
    arrived: Arrived, capfd: Any
) -> None:
    async with Manager(workers=1, initializer=configure, forward_logs=True) as manager:
        await manager.schedule(log_in_task("a"))
    assert arrived.messages == ["before", "info a", "failed a", "chatty a"]
    printed = capfd.readouterr().out
    assert "INFO:logged:between" in printed
    assert "ERROR:logged:failed a" in printed  # by its own handler


async def test_what_a_worker_that_cannot_begin_has_logged_arrives(arrived: Arrived) -> None:
    manager = Manager(workers=1, initializer=fail_to_begin, forward_logs=True)
    manager.start()
    with pytest.raises(WorkerStartError, match="no database"):
        await manager.ready()
    await manager.close()
    assert arrived.messages == ["its last words"]


@pytest.mark.parametrize("options", [{"workers": 1}, {"workers": 0, "forward_logs": True}])
async def test_without_it_nothing_comes(arrived: Arrived, options: Any) -> None:
    async with Manager(**options) as manager:
        await manager.schedule(log_in_task("a"))
    assert not arrived.records  # records of this process do not come from workers


@pytest.mark.parametrize("flood", [flood_in_tasks, flood_in_thread])
async def test_a_flood_holds_nothing_up_and_each_record_arrives_or_is_counted(
    arrived: Arrived, flood: Any
) -> None:
    most = 0
    async with Manager(2, workers=1, forward_logs=True) as manager:
        flooding = manager.schedule(flood(COUNT))
        tasks = 0
        while not flooding.done() or not tasks:
            numbers = range(tasks, tasks + 10)
            assert await manager.map(square, numbers) == [n * n for n in numbers]
            tasks += 10
            before = len(arrived.records)
            await asyncio.sleep(0)
            most = max(most, len(arrived.records) - before)
        await flooding
        life: Any = manager._remotes[0].supervisor.process
        assert life.pipe.waiting == 0
    dropped = manager.stats().logs_dropped
    assert dropped > 0
    assert len(arrived.messages) + dropped == COUNT
    told = [int(message.split()[1]) for message in arrived.messages]
    assert told == sorted(set(told))
    assert most <= workers_module("backlog").FRAME_RECORDS  # in a turn of this loop


async def test_what_a_killed_worker_had_not_written_is_lost(arrived: Arrived) -> None:
    async with Manager(2, workers=1, forward_logs=True, max_restarts=(9, 9.0)) as manager:
        with pytest.raises(WorkerLost):
            await manager.map(log_and_die, ["a"])
        manager.schedule(flood_in_thread(10**7))
        await arrived.until("flood 0")
        pid = manager.stats().workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await manager.schedule(log_in_task("of the next"))
        await arrived.until("info of the next")
        assert "a" not in arrived.messages
        assert manager.stats().restarts == 2


@pytest.mark.parametrize("how", ["close", "drain"])
async def test_at_an_orderly_end_all_arrives(arrived: Arrived, how: str) -> None:
    manager = Manager(1, workers=1, forward_logs=True)
    manager.start()
    task = manager.schedule(log_and_wait("one"))
    await arrived.until("one")
    if how == "drain":
        pid = manager.stats().workers[0].pid
        assert pid is not None
        task.cancel()
        os.kill(pid, signal.SIGTERM)
        await manager.schedule(square(2), timedelta(0))  # by the next process
    await manager.close(0)
    assert arrived.messages == ["one", "one ends"]


@pytest.mark.parametrize("error", [LookupError("on purpose"), asyncio.CancelledError()])
async def test_a_handler_of_the_host_that_raises_harms_nothing(
    arrived: Arrived, reports: list[Any], capsys: Any, error: BaseException
) -> None:
    arrived.raises = error
    async with Manager(workers=2, forward_logs=True) as manager:
        for word in "abc":
            await manager.schedule(log_in_task(word), key=word)
        assert await manager.map(square, range(9)) == [n * n for n in range(9)]
    assert len(arrived.messages) == 9
    assert manager.stats().restarts == 0
    if isinstance(error, Exception):
        assert capsys.readouterr().err.count("LookupError: on purpose") == len(arrived.records)
        assert not reports
    else:
        assert {type(report.get("exception")) for report in reports} <= {asyncio.CancelledError}
        reports.clear()


async def test_a_forked_child_logs_as_python_does(arrived: Arrived, capfd: Any) -> None:
    async with Manager(1, workers=1, forward_logs=True) as manager:
        assert await manager.map(log_in_forked_child, ["of the child"]) == [0]
    assert arrived.messages == ["before of the child"]
    assert capfd.readouterr().err == "of the child\n"
