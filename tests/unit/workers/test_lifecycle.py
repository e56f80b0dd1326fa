"""How a worker begins, and each way in which it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

import pytest
import shared
from propagated import request_id
from solo import LATER, Make, Rig, after, fail, forever, give
from turning import turns

from aioscheduler._processes.process import workers_module
from aioscheduler._scheduling import ending
from aioscheduler._scheduling.clock import SECOND
from aioscheduler._scheduling.order import Order
from aioscheduler._shipping.propagation import Propagation
from aioscheduler._transport.wire import CANCELLED, FAILED, FINISHED, IN_BLOB, Kind


async def test_it_runs_nothing_before_it_is_told_to_begin(make: Make) -> None:
    rig = make()
    await rig.start(boot=None)
    rig.schedule(0, give(1))
    await turns()
    assert rig.take() == []
    rig.send(Kind.BOOT, b"", True)
    await turns()
    assert rig.take() == [
        [Kind.READY],
        [Kind.ANNOUNCED, 0, [0]],
        [Kind.ENDED, 0, [0], FINISHED, [1]],
    ]
    assert len(rig.pipe.ticks) == 1  # the first tick comes at once


async def test_the_initializer_comes_in_parts_and_first(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_levelToName", "_nameToLevel"):
        monkeypatch.setattr(logging, name, {})
    rig = make()
    call = rig.shipper.take_call(logging.addLevelName, (77, "of the initializer"))
    function = rig.shipper.take_function(logging.getLevelName)
    await rig.start(boot=None)
    rig.tell_definitions()
    rig.send(Kind.SCHEDULE, 0, 0, 0, function, None, [77])
    rig.send(Kind.BOOT, call[:40], False)
    await turns()
    assert rig.take() == []
    rig.send(Kind.BOOT, call[40:], True)
    await turns()
    ready, _, finished = rig.take()
    assert ready == [Kind.READY]
    assert finished == [Kind.ENDED, 0, [0], FINISHED, ["of the initializer"]]


async def test_an_initializer_that_fails_is_its_last_word(make: Make) -> None:
    rig = make()
    await rig.start(rig.shipper.take_call(fail, ("no database",)))
    ((kind, text),) = rig.take()
    assert kind == Kind.FATAL
    assert text.endswith("LookupError: no database\n")
    await rig.serving
    assert not rig.pipe.is_open


async def test_earlier_failures_are_reported_instead_of_ready(make: Make) -> None:
    rig = make(failures=(ImportError("no uvloop"),))
    await rig.start()
    ((kind, text),) = rig.take()
    assert kind == Kind.FATAL
    assert "ImportError: no uvloop" in text
    await rig.serving


async def swallow_and(then: str) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await forever()
    if then == "raise":
        raise LookupError(then)


@pytest.mark.parametrize("then", ["return", "raise"])
@pytest.mark.parametrize("end", ["drain", "close", "halt"])
async def test_an_initializer_that_swallows_its_cancellation_begins_nothing(
    make: Make, end: str, then: str
) -> None:
    rig = make()
    await rig.start(rig.shipper.take_call(swallow_and, (then,)))
    rig.schedule(0, give(1))
    if end == "close":
        rig.send(Kind.CLOSE, 0.0)
    else:
        getattr(rig.worker, end)()
    await turns()
    assert rig.serving.done() == (end != "halt")
    rig.pipe.flush()
    assert rig.take() == []
    assert not any(engine.running for engine in rig.worker._engines)


async def test_one_drained_before_it_could_begin_does_not_begin(make: Make) -> None:
    rig = make()
    await rig.start(boot=None)
    rig.worker.drain()
    rig.send(Kind.BOOT, b"", True)
    await rig.serving
    assert rig.take() == []


async def test_a_failed_worker_sends_its_last_words(make: Make) -> None:
    rig = make()
    read = asyncio.Event()
    rig.pipe.drain = read.wait  # type: ignore[method-assign, assignment]
    await rig.start(rig.shipper.take_call(fail, ("no database",)))
    rig.worker.drain()
    rig.pipe.closed(None)
    await turns()
    assert not rig.serving.done()
    read.set()
    await rig.serving
    assert [frame[0] for frame in rig.take()] == [Kind.FATAL]
    assert rig.pipe.ticks == []  # it does not end as if that were requested


async def test_close_cancels_what_waits_and_writes_the_last_outcomes(rig: Rig) -> None:
    rig.schedule(0, forever())
    rig.schedule(1, give(1), LATER)
    await turns()
    assert rig.take() == [[Kind.ANNOUNCED, 0, [0]]]
    rig.send(Kind.CLOSE, 0.0)
    await rig.serving
    # The host counts tasks that were not announced.
    assert rig.take() == [[Kind.ENDED, 0, [0], CANCELLED, [None]]]
    assert not rig.pipe.is_open


async def test_it_ends_when_its_host_has_gone(rig: Rig) -> None:
    rig.schedule(0, forever())
    await turns()
    rig.pipe.closed(None)
    await rig.serving
    assert rig.take()[-1] == [Kind.ENDED, 0, [0], CANCELLED, [None]]


async def swallow() -> None:
    while not may_end:
        with contextlib.suppress(asyncio.CancelledError):
            await forever()


may_end: list[bool] = []


@pytest.fixture
async def swallowing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin a task that swallows every cancellation, in a worker that waits for none."""
    for patience in ("CLEANUP_TIME", "LAST_WORDS"):
        monkeypatch.setattr(ending, patience, 0)
    may_end.clear()
    rig.schedule(0, swallow())
    await turns()


async def test_a_task_that_swallows_its_cancellation_is_ended_by_the_host_if_there_is_one(
    rig: Rig, swallowing: None
) -> None:
    rig.send(Kind.CLOSE, 0.0)
    await turns(30)
    assert not rig.serving.done()
    rig.pipe.closed(None)
    await rig.serving
    may_end.append(True)
    (running,) = rig.worker._engines[0].running.values()
    running[0].cancel()
    await asyncio.wait([running[0]])


async def test_drain_gives_back_what_was_announced_and_had_not_begun(rig: Rig) -> None:
    rig.schedule(0, forever(), scheduler=1)
    await turns()
    rig.take()
    rig.pipe.held = True
    rig.schedule(1, give(1))
    rig.schedule(2, give(2), LATER)
    await turns()
    rig.worker.drain()
    await turns()
    rig.pipe.held = False
    rig.pipe.flush()
    await turns()
    assert rig.take() == [
        [Kind.ANNOUNCED, 0, [1]],
        [Kind.DRAINING],
        [Kind.UNBEGUN, 0, [1]],
    ]
    assert rig.begun == [0, 1]  # task 0 alone
    assert not rig.serving.done()  # it would have ten seconds, and is cancelled by the host here
    rig.send(Kind.CANCEL, 1, [0])
    await rig.serving
    assert rig.take() == [[Kind.ENDED, 1, [0], CANCELLED, [None]], [Kind.DRAINED]]


async def test_a_task_that_swallows_the_end_of_a_drain_keeps_its_worker_from_sending_drained(
    rig: Rig, swallowing: None, no_patience: None
) -> None:
    rig.take()
    rig.worker.drain()
    await turns(30)
    assert rig.take() == [[Kind.DRAINING]]  # the host kills it
    assert not rig.serving.done()
    may_end.append(True)
    rig.pipe.closed(None)
    await rig.serving


async def test_the_host_may_request_a_drain_like_sigterm(rig: Rig) -> None:
    rig.schedule(0, forever())
    await turns()
    rig.take()
    rig.send(Kind.DRAIN)
    rig.schedule(1, give(1))  # it was being sent
    await turns()
    assert rig.take() == [[Kind.DRAINING]]
    rig.send(Kind.CANCEL, 0, [0])
    await rig.serving


async def test_it_reports_its_size_if_configured(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_module("worker"), "resident_bytes", lambda: 5_000)
    for measured, size in ((False, 0), (True, 5_000)):
        rig = make(measured=measured)
        await rig.start()
        assert [tick[-1] for tick in rig.pipe.ticks] == [size]  # the first comes after READY
        rig.send(Kind.CLOSE, 0.0)
        await rig.serving


async def test_a_blob_that_comes_to_a_draining_worker_starts_nothing(rig: Rig) -> None:
    rig.schedule(0, forever())
    rig.send(Kind.SCHEDULE, 1, 0, 0, 0, None, [IN_BLOB])
    await turns()
    rig.take()
    rig.worker.drain()
    await turns()
    assert rig.take() == [[Kind.DRAINING]]  # the host has not heard of task 1
    rig.pipe.receive([Kind.BLOB, 1, b"x" * 100_000])
    await turns()
    assert rig.take() == []
    assert rig.worker._announcer._blobs == {}
    rig.send(Kind.CANCEL, 0, [0])
    await rig.serving


async def test_an_internal_failure_ends_it_and_is_reported(rig: Rig) -> None:
    rig.schedule(0, forever())
    await turns()
    rig.take()
    rig.worker._runner.broken(None, MemoryError("no room"), {})
    await rig.serving
    ((kind, text),) = rig.take()  # the task is not reported: it is lost, not cancelled
    assert kind == Kind.FATAL
    assert "MemoryError: no room" in text
    for engine in rig.worker._engines:
        for task, _ in engine.running.values():
            task.cancel()


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give running tasks no time when their worker drains."""
    monkeypatch.setattr(workers_module("lifecycle"), "DRAIN_TIME", 0)


async def resist(value: str) -> str:
    try:
        await forever()
    except asyncio.CancelledError:
        if value == "raise":
            raise LookupError(value) from None
        return value
    return ""


async def test_what_a_drain_cancels_is_lost_unless_somebody_had_requested_it(
    rig: Rig, no_patience: None
) -> None:
    rig.schedule(0, forever())
    rig.schedule(1, forever())
    rig.call(2, resist, ["return", "raise"])
    await turns()
    rig.take()
    rig.worker.drain()
    await asyncio.sleep(0)
    rig.send(Kind.CANCEL, 0, [1])
    await rig.serving
    draining, *ends, drained = rig.take()
    assert (draining, drained) == ([Kind.DRAINING], [Kind.DRAINED])
    assert [frame[2:4] for frame in ends] == [[[2], FINISHED], [[3], FAILED], [[1], CANCELLED]]


async def test_what_a_drain_cancels_may_start_once_more(rig: Rig, no_patience: None) -> None:
    rig.schedule(0, resist("raise"), retry=after(5))
    await turns()
    rig.take()
    rig.worker.drain()
    await rig.serving
    _, retry, _ = rig.take()
    assert retry[:4] == [Kind.RETRY, 0, [0], [5 * SECOND]]


async def test_a_task_that_rests_in_a_queue_waits_for_the_next_process(make: Make) -> None:
    rig = make(Order.FIFO, (1,))
    await rig.start()
    rig.schedule(0, fail("once"), retry=after(1))
    rig.schedule(1, give(1))
    await turns()
    rig.take()
    rig.worker.drain()
    await rig.serving
    assert rig.take() == [[Kind.DRAINING], [Kind.DRAINED]]


async def test_tasks_that_run_when_it_fails_are_lost(rig: Rig) -> None:
    rig.schedule(0, forever())
    rig.call(1, resist, ["return"])
    await turns()
    rig.take()
    rig.worker._fail(MemoryError())
    for engine in rig.worker._engines:
        for task, _ in engine.running.values():
            task.cancel()  # like the end of the process
    await rig.serving
    rig.pipe.flush()
    failed, finished = rig.take()
    assert failed[0] == Kind.FATAL
    assert finished == [Kind.ENDED, 0, [1], FINISHED, ["return"]]


# ---- what the initializer has opened


def words_of(path: Path) -> list[str]:
    return shared.words(path) if path.exists() else []


@pytest.mark.parametrize("end", ["close", "drain", "host_gone"])
async def test_a_lifespan_is_left_after_the_last_task(
    make: Make, tmp_path: Path, end: str, no_patience: None
) -> None:
    path = tmp_path / "log"
    rig = make()
    await rig.start(rig.shipper.take_call(shared.share, (str(path),)))
    assert words_of(path) == ["entered"]
    rig.schedule(0, shared.see_slowly(str(path), 60.0))
    rig.schedule(1, shared.see())
    await turns()
    if end == "close":
        rig.send(Kind.CLOSE, 0.0)
    elif end == "drain":
        rig.worker.drain()
    else:
        rig.pipe.closed(None)
    await rig.serving
    assert words_of(path) == ["entered", "task", "left"]
    seen = [frame for frame in rig.take() if frame[:3] == [Kind.ENDED, 0, [1]]]
    assert b"open" in seen[0][4][0]


async def test_one_that_ends_by_itself_ends_its_worker(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "log"
    (tmp_path / "log.end").touch()
    rig = make()
    await rig.start(rig.shipper.take_call(shared.share_badly, (str(path), "ends")))
    await rig.serving
    *_, (kind, text) = rig.take()
    assert kind == Kind.FATAL
    assert "has ended before its tasks" in text
    assert "LookupError: the database is gone" in text


async def test_one_whose_worker_is_halted_is_cancelled(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "log"
    rig = make()
    await rig.start(rig.shipper.take_call(shared.share, (str(path),)))
    rig.worker.halt()
    await turns()
    assert words_of(path) == ["entered", "cancelled"]
    rig.serving.cancel()


async def test_one_that_cannot_be_entered_is_the_end(make: Make, tmp_path: Path) -> None:
    rig = make()
    call = rig.shipper.take_call(shared.share_badly, (str(tmp_path / "log"), "enter"))
    await rig.start(call)
    ((kind, text),) = rig.take()
    assert kind == Kind.FATAL
    assert "LookupError: no database\n" in text
    await rig.serving


async def test_what_propagates_is_known_before_any_task(make: Make) -> None:
    rig = make()
    rig.shipper.catalog.propagation = Propagation((request_id,))
    call = rig.shipper.take_call(None, ())
    await rig.start(boot=None)
    rig.schedule(0, give(1), record=rig.shipper.take_record(None, [1, "ann"]))
    rig.send(Kind.BOOT, call, True)
    await turns()
    assert rig.take()[0] == [Kind.READY]
    assert rig.worker._catalog.propagation.parts()["context variable"] == {"request_id": request_id}
