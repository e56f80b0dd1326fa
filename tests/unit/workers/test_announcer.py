"""No task begins before it is announced, or before its arguments are here."""

from __future__ import annotations

import asyncio

import pytest
from acting import ran, trace, trace_alone, trace_and_fail
from solo import LATER, Make, Rig, after, fail, forever, give
from turning import turns

from aioscheduler._scheduling.few import MOST
from aioscheduler._scheduling.order import Order
from aioscheduler._scheduling.pace import MAX_SLICE
from aioscheduler._transport import wire
from aioscheduler._transport.wire import CANCELLED, FAILED, FINISHED, IN_BLOB, Kind


async def test_nothing_begins_before_its_announcement_is_written(rig: Rig) -> None:
    rig.pipe.held = True
    rig.schedule(4, give("a"))
    rig.schedule(5, give("b"), scheduler=1)
    await turns()
    assert rig.begun == [0, 0]
    rig.pipe.held = False
    rig.pipe.flush()
    await turns()
    assert rig.begun == [5, 6]
    frames = rig.take()
    assert frames[:2] == [[Kind.ANNOUNCED, 0, [4]], [Kind.ANNOUNCED, 1, [5]]]
    assert sorted(frames[2:], key=str) == [
        [Kind.ENDED, 0, [4], FINISHED, ["a"]],
        [Kind.ENDED, 1, [5], FINISHED, ["b"]],
    ]


async def test_a_queue_announces_one_at_a_time(make: Make) -> None:
    rig = make(Order.LIFO, (1,))
    await rig.start()
    function = rig.shipper.take_function(abs)
    rig.tell_definitions()
    rig.send(Kind.SCHEDULE, 0, 0, 0, function, None, [-1, -2, -3])
    await turns(30)
    frames = rig.take()
    for kind in (Kind.ANNOUNCED, Kind.ENDED):
        assert [frame[2] for frame in frames if frame[0] == kind] == [[2], [1], [0]]
    # The next is announced once the one before has ended, even if that is unreported.
    assert frames.index([Kind.ANNOUNCED, 0, [0]]) > frames.index(
        [Kind.ENDED, 0, [2], FINISHED, [3]]
    )


async def test_with_a_limit_ends_are_reported_before_more_tasks_are_announced(make: Make) -> None:
    """So that the host never counts more than may run."""
    rig = make(max_running=2)
    await rig.start()
    rig.take()
    rig.call(0, abs, [-1, -2, -3, -4, -5])
    await turns()
    assert rig.take() == [
        [Kind.ANNOUNCED, 0, [0, 1]],
        [Kind.ENDED, 0, [0, 1], FINISHED, [1, 2]],
        [Kind.ANNOUNCED, 0, [2, 3]],
        [Kind.ENDED, 0, [2, 3], FINISHED, [3, 4]],
        [Kind.ANNOUNCED, 0, [4]],
        [Kind.ENDED, 0, [4], FINISHED, [5]],
    ]


async def test_a_task_that_waits_for_the_pipe_or_its_arguments_takes_up_room(make: Make) -> None:
    rig = make(max_running=2)
    await rig.start()
    function, payload, _ = rig.shipper.take(give(b"x" * 100_000))
    rig.tell_definitions()
    rig.take()
    rig.send(Kind.SCHEDULE, 0, 0, 0, function, None, [IN_BLOB])
    rig.pipe.held = True
    rig.call(1, abs, [-1, -2])
    await turns()
    rig.pipe.held = False
    rig.pipe.flush()
    assert rig.take() == [[Kind.ANNOUNCED, 0, [1]]]
    await turns()
    assert [frame[2] for frame in rig.take() if frame[0] == Kind.ANNOUNCED] == [[2]]
    rig.schedule(3, forever())
    rig.schedule(4, forever())
    rig.schedule(5, forever())
    await turns()
    assert rig.take() == [[Kind.ANNOUNCED, 0, [3]]]
    rig.send(Kind.CANCEL, 0, [0])  # its arguments are not awaited any more
    await turns()
    assert rig.take() == [
        [Kind.ENDED, 0, [0], CANCELLED, [None]],
        [Kind.ANNOUNCED, 0, [4]],
    ]
    rig.send(Kind.CANCEL, 0, [3])
    await turns()
    assert rig.take() == [
        [Kind.ENDED, 0, [3], CANCELLED, [None]],
        [Kind.ANNOUNCED, 0, [5]],
    ]


async def test_a_task_that_waits_for_confirm_takes_up_room(make: Make) -> None:
    rig = make(confirmed=True, max_running=2)
    await rig.start()
    rig.take()
    rig.call(0, abs, [-1, -2, -3])
    await turns()
    assert rig.take() == [[Kind.PROPOSED, 0, [0, 1]]]
    rig.send(Kind.CONFIRM, [0])
    await turns()
    assert rig.take() == [
        [Kind.ENDED, 0, [0, 1], FINISHED, [1, 2]],
        [Kind.PROPOSED, 0, [2]],
    ]


async def test_a_task_waits_for_its_large_arguments(rig: Rig) -> None:
    function, payload, _ = rig.shipper.take(give(b"x" * 100_000))
    rig.tell_definitions()
    rig.send(Kind.SCHEDULE, 0, 0, 0, function, None, [IN_BLOB])
    rig.schedule(1, give("small"))
    await turns()
    assert rig.take() == [
        [Kind.ANNOUNCED, 0, [1]],
        [Kind.ENDED, 0, [1], FINISHED, ["small"]],
    ]
    rig.pipe.receive([Kind.BLOB, 0, payload])
    await turns()
    started, blob, finished = rig.take()
    assert started == [Kind.ANNOUNCED, 0, [0]]
    assert (blob[:2], finished) == (
        [Kind.BLOB, 0],
        [Kind.ENDED, 0, [0], FINISHED, [IN_BLOB]],  # after its blob, as large as the arguments
    )
    assert blob[2] > 100_000


async def test_there_may_be_no_memory_for_them(rig: Rig) -> None:
    function, _, _ = rig.shipper.take(give(b"x" * 100_000))
    rig.tell_definitions()
    rig.send(Kind.SCHEDULE, 0, 0, 0, function, None, [IN_BLOB])
    rig.pipe.receive([Kind.BLOB, 0, None])
    await turns()
    _, failed = rig.take()
    assert isinstance(rig.failure(failed[4][0]), MemoryError)


async def test_large_arguments_of_a_cancelled_task_are_not_kept(rig: Rig) -> None:
    rig.send(Kind.SCHEDULE, 0, 0, 0, 0, None, [IN_BLOB])
    await turns()
    rig.send(Kind.CANCEL, 0, [0])
    await turns()
    assert rig.take() == [[Kind.ENDED, 0, [0], CANCELLED, [None]]]
    rig.pipe.receive([Kind.BLOB, 0, b"x" * 100_000])
    await turns()
    assert rig.take() == []
    assert rig.worker._announcer._blobs == {}


async def test_large_arguments_that_had_arrived_are_not_kept_either(rig: Rig) -> None:
    rig.send(Kind.SCHEDULE, 0, 0, LATER, 0, None, [IN_BLOB])
    rig.pipe.receive([Kind.BLOB, 0, b"x" * 100_000])
    assert list(rig.worker._announcer._blobs) == [0]
    rig.send(Kind.CANCEL, 0, [0])
    assert rig.worker._announcer._blobs == {}


# ---- tasks that begin on CONFIRM alone


CONFIRMED = wire.make_record(wire.More(confirmed=1))
ALONE = wire.make_record(wire.More(confirmed=wire.ALONE))
FEW = wire.make_record(wire.More(confirmed=wire.FEW))


async def test_if_all_wait_they_begin_when_the_host_has_entered_them(make: Make) -> None:
    rig = make(confirmed=True)
    await rig.start()
    rig.take()
    rig.call(4, give, ["a", "b"])
    rig.call(6, give, ["c"], scheduler=1)
    await turns()
    assert rig.take() == [[Kind.PROPOSED, 0, [4, 5]], [Kind.PROPOSED, 1, [6]]]
    assert rig.begun == [0, 0]
    rig.send(Kind.CONFIRM, [1])  # in any order
    await turns()
    assert rig.take() == [[Kind.ENDED, 1, [6], FINISHED, ["c"]]]
    assert rig.begun_on_word == [0, 7]
    rig.send(Kind.CONFIRM, [0])
    await turns()
    assert rig.take() == [[Kind.ENDED, 0, [4, 5], FINISHED, ["a", "b"]]]
    assert (rig.begun, rig.begun_on_word) == ([0, 0], [6, 7])


@pytest.mark.parametrize("index", [0, 2])
async def test_an_announcement_that_does_not_wait_is_not_confirmed(make: Make, index: int) -> None:
    rig = make(confirmed=True)
    await rig.start()
    rig.call(0, give, ["a"])
    rig.call(1, give, ["b"], scheduler=1)
    await turns()
    rig.send(Kind.CONFIRM, [0])
    with pytest.raises(wire.WireError, match=f"proposal {index} is confirmed, and does not"):
        rig.send(Kind.CONFIRM, [1, index])


async def test_timed_tasks_do_not_wait_with_those_that_do(rig: Rig) -> None:
    ran.clear()
    function = rig.shipper.take_function(trace)
    rig.tell_definitions()
    records = [None, CONFIRMED, None, ALONE, CONFIRMED, ALONE]
    rig.send(Kind.SCHEDULE, 0, 0, 0, function, records, [0, 1, 2, 3, 4, 5])
    await turns()
    announcements = [
        [Kind.PROPOSED, 0, [3]],
        [Kind.PROPOSED, 0, [5]],
        [Kind.ANNOUNCED, 0, [0, 2]],
        [Kind.PROPOSED, 0, [1, 4]],
    ]
    assert rig.take() == [*announcements, [Kind.ENDED, 0, [0, 2], FINISHED, [None, None]]]
    rig.call(6, trace, [6])
    await turns()
    assert ran == [0, 2, 6]
    rig.send(Kind.CONFIRM, [2, 0])
    await turns()
    assert ran == [0, 2, 6, 1, 4, 3]
    assert (rig.begun, rig.begun_on_word) == ([7, 0], [4, 0])
    rig.send(Kind.CONFIRM, [1])
    await turns()
    assert ran == [0, 2, 6, 1, 4, 3, 5]
    announcer = rig.worker._announcer
    assert not (announcer._some or announcer._alone or announcer._proposed)


async def test_no_more_is_launched_because_one_that_waited_has_begun(rig: Rig) -> None:
    """An announced task has begun, to the host: announcements must not pile up in a full pipe."""
    rig.schedule(0, give("waits"), record=CONFIRMED)
    await turns()
    rig.pipe.held = True
    rig.schedule(1, give("is announced"))
    await turns()
    rig.schedule(2, give("is not"))
    rig.send(Kind.CONFIRM, [0])
    await turns()
    assert rig.begun_on_word == [1, 0]
    assert len([None for _, written in rig.pipe._waiting if written is not None]) == 1
    rig.pipe.held = False
    rig.pipe.flush()
    await turns()
    assert rig.begun == [3, 0]


async def test_a_queue_keeps_its_order_and_waits_with_what_waits(make: Make) -> None:
    rig = make(Order.FIFO, (1,))
    await rig.start()
    rig.take()
    ran.clear()
    function = rig.shipper.take_function(trace_alone)
    rig.tell_definitions()
    records = [None, None, CONFIRMED, None]
    rig.send(Kind.SCHEDULE, 0, 0, 0, function, records, ["a", "b", "c", "d"])
    rig.call(4, trace_alone, ["e"])
    await turns(20)
    announcements = [[Kind.ANNOUNCED, 0, [0, 1]], [Kind.PROPOSED, 0, [2, 3, 4]]]
    assert [frame for frame in rig.take() if frame[0] != Kind.ENDED] == announcements
    assert ran == ["a", "b"]
    rig.send(Kind.CONFIRM, [0])
    await turns(40)
    assert ran == ["a", "b", "c", "d", "e"]
    assert (rig.begun, rig.begun_on_word) == ([5], [0])  # in order


async def test_what_waits_for_its_next_attempt_at_the_head_lets_nothing_by(make: Make) -> None:
    rig = make(Order.FIFO, (1,))
    await rig.start()
    rig.take()
    ran.clear()
    rig.schedule(0, trace_and_fail("head"), retry=after(1))
    rig.schedule(1, trace_alone("waits"), record=CONFIRMED)
    rig.schedule(2, trace_alone("last"))
    await turns(20)
    await rig.pass_(1)
    await turns(20)
    assert ran == ["head", "head"]
    rig.send(Kind.CONFIRM, [0])
    await turns(20)
    assert ran == ["head", "head", "waits", "last"]


def announced_in(rig: Rig) -> list[list[int]]:
    return [frame[2] for frame in rig.take() if frame[0] == Kind.PROPOSED]


async def test_only_few_tasks_that_would_be_in_doubt_are_announced(rig: Rig) -> None:
    ran.clear()
    function = rig.shipper.take_function(trace)
    rig.tell_definitions()
    count = 3 * MOST
    records = [FEW] * count
    rig.send(Kind.SCHEDULE, 0, 0, 0, function, records, list(range(count)))
    rig.schedule(count, trace("other"))
    await turns()
    index, announced = 0, announced_in(rig)
    assert sum(announced, []) == list(range(MOST))
    assert ran == ["other"]  # these do not wait with them
    assert rig.worker._announcer.is_held_back(MOST)
    rig.send(Kind.CANCEL, 0, [MOST])
    while announced:
        for numbers in announced:
            rig.send(Kind.CONFIRM, [index])
            index += 1
            await turns()
            assert ran[-len(numbers) :] == numbers
        announced = announced_in(rig)
        assert len(sum(announced, [])) <= MOST
    assert sorted(ran[1:]) == [number for number in range(count) if number != MOST]


async def test_what_is_held_back_was_not_announced_when_its_process_drains(rig: Rig) -> None:
    function = rig.shipper.take_function(trace)
    rig.tell_definitions()
    count = MOST + 3
    rig.send(Kind.SCHEDULE, 0, 0, 0, function, [FEW] * count, list(range(count)))
    await turns()
    rig.take()
    rig.send(Kind.DRAIN)
    await turns()
    (unstarted,) = [frame[2] for frame in rig.take() if frame[0] == Kind.UNBEGUN]
    assert sorted(unstarted) == list(range(MOST))


async def test_a_queue_with_one_that_is_alone_announces_one_at_a_time(make: Make) -> None:
    rig = make(Order.FIFO, (1,))
    await rig.start()
    rig.take()
    ran.clear()
    function = rig.shipper.take_function(trace_alone)
    rig.tell_definitions()
    records = [CONFIRMED, ALONE, CONFIRMED, CONFIRMED]
    rig.send(Kind.SCHEDULE, 0, 0, 0, function, records, ["a", "b", "c", "d"])
    for index, ahead in enumerate((1, 1, 32, 1)):
        await turns(20)
        assert [f[2] for f in rig.take() if f[0] == Kind.PROPOSED] == [[index]]
        assert ran == ["a", "b", "c", "d"][:index]
        assert rig.worker._engines[0].ahead == ahead
        rig.send(Kind.CONFIRM, [index])
    await turns(20)
    assert ran == ["a", "b", "c", "d"]


async def test_beside_one_that_runs_alone_nothing_is_announced(make: Make) -> None:
    rig = make(Order.FIFO, (1,))
    await rig.start()
    rig.take()
    rig.schedule(0, forever(), record=ALONE)
    rig.schedule(1, give(1), record=CONFIRMED)
    await turns()
    rig.send(Kind.CONFIRM, [0])
    await turns(20)
    assert rig.take() == [[Kind.PROPOSED, 0, [0]]]
    rig.send(Kind.CANCEL, 0, [0])
    await turns(20)
    assert [frame[:3] for frame in rig.take()] == [
        [Kind.ENDED, 0, [0]],
        [Kind.PROPOSED, 0, [1]],
    ]


async def let_one_wait(rig: Rig) -> object:
    """Make task 0 wait for its payload, which is returned, and task 1 for CONFIRM."""
    ran.clear()
    function, payload, _ = rig.shipper.take(trace(b"x" * 40_000))
    rig.tell_definitions()
    rig.send(Kind.SCHEDULE, 0, 0, 0, function, None, [IN_BLOB])
    rig.schedule(1, trace(1), record=CONFIRMED)
    await turns()
    return payload


async def test_a_late_payload_of_a_timed_task_waits_for_nobody(rig: Rig) -> None:
    payload = await let_one_wait(rig)
    assert rig.take() == [[Kind.PROPOSED, 0, [1]]]
    rig.pipe.receive([Kind.BLOB, 0, payload])
    rig.schedule(2, trace(2))
    await turns()
    assert ran == [b"x" * 40_000, 2]
    rig.send(Kind.CONFIRM, [0])
    await turns(20)
    assert ran == [b"x" * 40_000, 2, 1]


async def test_late_payloads_that_come_together_are_announced_in_slices(rig: Rig) -> None:
    """An announced task has begun, to the host: after a death no other process could run it."""
    ran.clear()
    count = 3 * MAX_SLICE
    function, payload, _ = rig.shipper.take(trace(b"x" * 40_000))
    rig.tell_definitions()
    for first in range(0, count, MAX_SLICE):
        rig.send(Kind.SCHEDULE, first, 0, 0, function, None, [IN_BLOB] * MAX_SLICE)
    await turns()
    assert rig.take() == []
    for number in range(count):
        rig.pipe.receive([Kind.BLOB, number, payload])
    rig.send(Kind.CANCEL, 0, [1])
    await turns(40)
    started = [frame[2] for frame in rig.take() if frame[0] == Kind.ANNOUNCED]
    assert [len(numbers) for numbers in started] == [MAX_SLICE - 1, MAX_SLICE, MAX_SLICE]
    assert [n for numbers in started for n in numbers] == [n for n in range(count) if n != 1]
    assert len(ran) == count - 1


async def test_a_task_cancelled_before_its_confirm_does_not_begin(make: Make) -> None:
    rig = make(confirmed=True)
    await rig.start()
    rig.take()
    rig.call(0, give, [1, 2, 3])
    await turns()
    rig.send(Kind.CANCEL, 0, [1])
    rig.send(Kind.WITHDRAW, 0, [0])  # it was announced
    await turns()
    assert rig.take() == [
        [Kind.PROPOSED, 0, [0, 1, 2]],
        [Kind.ENDED, 0, [1], CANCELLED, [None]],
    ]
    rig.send(Kind.CONFIRM, [0])
    await turns()
    assert rig.take() == [[Kind.ENDED, 0, [0, 2], FINISHED, [1, 3]]]


async def test_a_drain_gives_back_tasks_that_wait_for_confirm(make: Make) -> None:
    rig = make(confirmed=True)
    await rig.start()
    rig.take()
    rig.call(0, give, [1, 2])
    await turns()
    rig.worker.drain()
    await asyncio.sleep(0)
    rig.send(Kind.CONFIRM, [0])
    await rig.serving
    assert rig.take() == [
        [Kind.PROPOSED, 0, [0, 1]],
        [Kind.DRAINING],
        [Kind.UNBEGUN, 0, [0, 1]],
        [Kind.DRAINED],
    ]
    assert rig.begun_on_word == [0, 0]


async def test_a_close_drops_tasks_that_wait_for_confirm(make: Make) -> None:
    rig = make(confirmed=True)
    await rig.start()
    rig.take()
    rig.call(0, give, [1, 2])
    await turns()
    rig.send(Kind.CLOSE, 0.0)
    await asyncio.sleep(0)
    rig.send(Kind.CONFIRM, [0])
    await rig.serving
    assert rig.take() == [
        [Kind.PROPOSED, 0, [0, 1]],
        [Kind.UNBEGUN, 0, [0, 1]],
        [Kind.ENDED, 0, [0, 1], CANCELLED, [None, None]],
    ]
    assert rig.begun_on_word == [0, 0]


async def test_a_worker_that_fails_begins_nothing_more(make: Make) -> None:
    rig = make(confirmed=True)
    await rig.start()
    rig.call(0, give, [1, 2])
    await turns()
    rig.worker._fail(MemoryError())
    rig.send(Kind.CONFIRM, [0])
    await rig.serving
    assert rig.begun_on_word == [0, 0]


@pytest.mark.parametrize(("order", "together"), [(Order.FIFO, 32), (Order.LIFO, 1)])
async def test_a_queue_that_waits_announces_ahead_and_runs_one_at_a_time(
    make: Make, order: Order, together: int
) -> None:
    rig = make(order, (1,), confirmed=True)
    await rig.start()
    rig.take()
    rig.call(0, trace_alone, list(range(40)))
    confirmed = 0
    announced: list[int] = []
    ran.clear()
    while len(ran) < 40:
        await turns(4)
        found = [frame[2] for frame in rig.take() if frame[0] == Kind.PROPOSED]
        announced += [number for numbers in found for number in numbers]
        assert not confirmed or len(announced) - len(ran) <= together + 1
        if found:
            assert len(found[0]) <= together
            rig.send(Kind.CONFIRM, list(range(confirmed, confirmed + len(found))))
            confirmed += len(found)
    assert ran == announced
    assert ran == (list(range(40)) if order is Order.FIFO else list(range(40))[::-1])
    assert confirmed == (2 if order is Order.FIFO else 40)


async def test_a_plain_queue_does_not_announce_ahead_nor_one_that_waits_for_a_payload(
    make: Make,
) -> None:
    rig = make(Order.FIFO, (1,))
    await rig.start()
    (engine,) = rig.worker._engines
    assert engine.ahead == 1
    rig.schedule(0, forever())
    await turns()
    rig.schedule(1, give(1), record=CONFIRMED)
    assert engine.ahead == 32
    rig.send(Kind.SCHEDULE, 2, 0, 0, 0, None, [IN_BLOB])
    assert engine.ahead == 1
    rig.send(Kind.CANCEL, 0, [2])
    assert engine.ahead == 32
    rig.send(Kind.CANCEL, 0, [1])
    assert engine.ahead == 1


async def test_a_task_that_starts_once_more_waits_again(make: Make) -> None:
    rig = make(Order.FIFO, (1,))
    await rig.start()
    rig.take()
    rig.schedule(0, fail("once"), record=CONFIRMED, retry=after(0))
    await turns()
    rig.send(Kind.CONFIRM, [0])
    await turns(20)
    assert [frame[0] for frame in rig.take()] == [Kind.PROPOSED, Kind.RETRY, Kind.PROPOSED]
    rig.send(Kind.CONFIRM, [1])
    await turns()
    (failed,) = rig.take()
    assert failed[:4] == [Kind.ENDED, 0, [0], FAILED]


async def test_what_was_announced_ahead_waits_for_an_attempt_that_failed(make: Make) -> None:
    rig = make(Order.FIFO, (1,), confirmed=True)
    await rig.start()
    rig.take()
    ran.clear()
    rig.schedule(0, trace_and_fail("once"), retry=after(1))
    rig.call(1, trace_alone, ["a", "b"])
    await turns()
    rig.send(Kind.CONFIRM, [0])
    await turns()
    announced, retry = rig.take()
    assert announced == [Kind.PROPOSED, 0, [0, 1, 2]]
    assert retry[:3] == [Kind.RETRY, 0, [0]]
    assert rig.begun == [1]
    await rig.pass_(1)
    assert rig.take() == [[Kind.PROPOSED, 0, [0]]]
    rig.send(Kind.CONFIRM, [1])
    await turns(20)
    assert ran == ["once", "once", "a", "b"]
    ends = [frame[2:4] for frame in rig.take() if frame[0] == Kind.ENDED]
    assert sorted(ends) == [[[0], FAILED], [[1], FINISHED], [[2], FINISHED]]


async def test_what_has_its_payload_and_is_not_announced_can_be_withdrawn(rig: Rig) -> None:
    payload = await let_one_wait(rig)
    rig.pipe.receive([Kind.BLOB, 0, payload])
    rig.send(Kind.WITHDRAW, 0, [0])
    rig.send(Kind.CONFIRM, [0])
    await turns(20)
    assert ran == [1]
    assert [Kind.ENDED, 0, [0], CANCELLED, [None]] in rig.take()


async def test_one_record_may_be_for_all_tasks_of_a_frame(rig: Rig) -> None:
    function = rig.shipper.take_function(abs)
    rig.tell_definitions()
    rig.send(Kind.SCHEDULE, 0, 0, 0, function, [CONFIRMED], [-1, -2, -3])
    await turns()
    assert rig.take() == [[Kind.PROPOSED, 0, [0, 1, 2]]]
    rig.send(Kind.CONFIRM, [0])
    await turns()
    assert rig.take() == [[Kind.ENDED, 0, [0, 1, 2], FINISHED, [1, 2, 3]]]
