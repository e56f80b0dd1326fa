"""No task begins before it is announced, or before its arguments are here."""

from __future__ import annotations

import asyncio

import pytest
from acting import ran, trace, trace_alone, trace_and_fail
from solo import LATER, Make, Place, after, fail, forever, give
from turning import turns

from aioscheduler._scheduling.few import MOST
from aioscheduler._scheduling.order import Order
from aioscheduler._scheduling.pace import MAX_SLICE
from aioscheduler._transport import wire
from aioscheduler._transport.wire import CANCELLED, FAILED, FINISHED, IN_BLOB, Kind


async def test_nothing_begins_before_its_announcement_is_written(place: Place) -> None:
    place.pipe.held = True
    place.schedule(4, give("a"))
    place.schedule(5, give("b"), scheduler=1)
    await turns()
    assert place.begun == [0, 0]
    place.pipe.held = False
    place.pipe.flush()
    await turns()
    assert place.begun == [5, 6]
    frames = place.take()
    assert frames[:2] == [[Kind.ANNOUNCED, 0, [4]], [Kind.ANNOUNCED, 1, [5]]]
    assert sorted(frames[2:], key=str) == [
        [Kind.ENDED, 0, [4], FINISHED, ["a"]],
        [Kind.ENDED, 1, [5], FINISHED, ["b"]],
    ]


async def test_a_queue_announces_one_at_a_time(make: Make) -> None:
    place = make(Order.LIFO, (1,))
    await place.start()
    function = place.shipper.take_function(abs)
    place.tell_definitions()
    place.send(Kind.SCHEDULE, 0, 0, 0, function, None, [-1, -2, -3])
    await turns(30)
    frames = place.take()
    for kind in (Kind.ANNOUNCED, Kind.ENDED):
        assert [frame[2] for frame in frames if frame[0] == kind] == [[2], [1], [0]]
    # The next is announced once the one before has ended, even if that is unreported.
    assert frames.index([Kind.ANNOUNCED, 0, [0]]) > frames.index(
        [Kind.ENDED, 0, [2], FINISHED, [3]]
    )


async def test_with_a_limit_ends_are_reported_before_more_tasks_are_announced(make: Make) -> None:
    """So that the host never counts more than may run."""
    place = make(max_running=2)
    await place.start()
    place.take()
    place.call(0, abs, [-1, -2, -3, -4, -5])
    await turns()
    assert place.take() == [
        [Kind.ANNOUNCED, 0, [0, 1]],
        [Kind.ENDED, 0, [0, 1], FINISHED, [1, 2]],
        [Kind.ANNOUNCED, 0, [2, 3]],
        [Kind.ENDED, 0, [2, 3], FINISHED, [3, 4]],
        [Kind.ANNOUNCED, 0, [4]],
        [Kind.ENDED, 0, [4], FINISHED, [5]],
    ]


async def test_a_task_that_waits_for_the_pipe_or_its_arguments_takes_up_room(make: Make) -> None:
    place = make(max_running=2)
    await place.start()
    function, payload, _ = place.shipper.take(give(b"x" * 100_000))
    place.tell_definitions()
    place.take()
    place.send(Kind.SCHEDULE, 0, 0, 0, function, None, [IN_BLOB])
    place.pipe.held = True
    place.call(1, abs, [-1, -2])
    await turns()
    place.pipe.held = False
    place.pipe.flush()
    assert place.take() == [[Kind.ANNOUNCED, 0, [1]]]
    await turns()
    assert [frame[2] for frame in place.take() if frame[0] == Kind.ANNOUNCED] == [[2]]
    place.schedule(3, forever())
    place.schedule(4, forever())
    place.schedule(5, forever())
    await turns()
    assert place.take() == [[Kind.ANNOUNCED, 0, [3]]]
    place.send(Kind.CANCEL, 0, [0])  # its arguments are not awaited any more
    await turns()
    assert place.take() == [
        [Kind.ENDED, 0, [0], CANCELLED, [None]],
        [Kind.ANNOUNCED, 0, [4]],
    ]
    place.send(Kind.CANCEL, 0, [3])
    await turns()
    assert place.take() == [
        [Kind.ENDED, 0, [3], CANCELLED, [None]],
        [Kind.ANNOUNCED, 0, [5]],
    ]


async def test_a_task_that_waits_for_confirm_takes_up_room(make: Make) -> None:
    place = make(confirmed=True, max_running=2)
    await place.start()
    place.take()
    place.call(0, abs, [-1, -2, -3])
    await turns()
    assert place.take() == [[Kind.PROPOSED, 0, [0, 1]]]
    place.send(Kind.CONFIRM, [0])
    await turns()
    assert place.take() == [
        [Kind.ENDED, 0, [0, 1], FINISHED, [1, 2]],
        [Kind.PROPOSED, 0, [2]],
    ]


async def test_a_task_waits_for_its_large_arguments(place: Place) -> None:
    function, payload, _ = place.shipper.take(give(b"x" * 100_000))
    place.tell_definitions()
    place.send(Kind.SCHEDULE, 0, 0, 0, function, None, [IN_BLOB])
    place.schedule(1, give("small"))
    await turns()
    assert place.take() == [
        [Kind.ANNOUNCED, 0, [1]],
        [Kind.ENDED, 0, [1], FINISHED, ["small"]],
    ]
    place.pipe.receive([Kind.BLOB, 0, payload])
    await turns()
    started, blob, finished = place.take()
    assert started == [Kind.ANNOUNCED, 0, [0]]
    assert (blob[:2], finished) == (
        [Kind.BLOB, 0],
        [Kind.ENDED, 0, [0], FINISHED, [IN_BLOB]],  # after its blob, as large as the arguments
    )
    assert blob[2] > 100_000


async def test_there_may_be_no_memory_for_them(place: Place) -> None:
    function, _, _ = place.shipper.take(give(b"x" * 100_000))
    place.tell_definitions()
    place.send(Kind.SCHEDULE, 0, 0, 0, function, None, [IN_BLOB])
    place.pipe.receive([Kind.BLOB, 0, None])
    await turns()
    _, failed = place.take()
    assert isinstance(place.failure(failed[4][0]), MemoryError)


async def test_large_arguments_of_a_cancelled_task_are_not_kept(place: Place) -> None:
    place.send(Kind.SCHEDULE, 0, 0, 0, 0, None, [IN_BLOB])
    await turns()
    place.send(Kind.CANCEL, 0, [0])
    await turns()
    assert place.take() == [[Kind.ENDED, 0, [0], CANCELLED, [None]]]
    place.pipe.receive([Kind.BLOB, 0, b"x" * 100_000])
    await turns()
    assert place.take() == []
    assert place.worker._announcer._blobs == {}


async def test_large_arguments_that_had_arrived_are_not_kept_either(place: Place) -> None:
    place.send(Kind.SCHEDULE, 0, 0, LATER, 0, None, [IN_BLOB])
    place.pipe.receive([Kind.BLOB, 0, b"x" * 100_000])
    assert list(place.worker._announcer._blobs) == [0]
    place.send(Kind.CANCEL, 0, [0])
    assert place.worker._announcer._blobs == {}


# ---- tasks that begin on CONFIRM alone


CONFIRMED = wire.make_record(wire.More(confirmed=1))
ALONE = wire.make_record(wire.More(confirmed=wire.ALONE))
FEW = wire.make_record(wire.More(confirmed=wire.FEW))


async def test_if_all_wait_they_begin_when_the_host_has_entered_them(make: Make) -> None:
    place = make(confirmed=True)
    await place.start()
    place.take()
    place.call(4, give, ["a", "b"])
    place.call(6, give, ["c"], scheduler=1)
    await turns()
    assert place.take() == [[Kind.PROPOSED, 0, [4, 5]], [Kind.PROPOSED, 1, [6]]]
    assert place.begun == [0, 0]
    place.send(Kind.CONFIRM, [1])  # in any order
    await turns()
    assert place.take() == [[Kind.ENDED, 1, [6], FINISHED, ["c"]]]
    assert place.begun_on_word == [0, 7]
    place.send(Kind.CONFIRM, [0])
    await turns()
    assert place.take() == [[Kind.ENDED, 0, [4, 5], FINISHED, ["a", "b"]]]
    assert (place.begun, place.begun_on_word) == ([0, 0], [6, 7])


@pytest.mark.parametrize("index", [0, 2])
async def test_an_announcement_that_does_not_wait_is_not_confirmed(make: Make, index: int) -> None:
    place = make(confirmed=True)
    await place.start()
    place.call(0, give, ["a"])
    place.call(1, give, ["b"], scheduler=1)
    await turns()
    place.send(Kind.CONFIRM, [0])
    with pytest.raises(wire.WireError, match=f"proposal {index} is confirmed, and does not"):
        place.send(Kind.CONFIRM, [1, index])


async def test_timed_tasks_do_not_wait_with_those_that_do(place: Place) -> None:
    ran.clear()
    function = place.shipper.take_function(trace)
    place.tell_definitions()
    records = [None, CONFIRMED, None, ALONE, CONFIRMED, ALONE]
    place.send(Kind.SCHEDULE, 0, 0, 0, function, records, [0, 1, 2, 3, 4, 5])
    await turns()
    announcements = [
        [Kind.PROPOSED, 0, [3]],
        [Kind.PROPOSED, 0, [5]],
        [Kind.ANNOUNCED, 0, [0, 2]],
        [Kind.PROPOSED, 0, [1, 4]],
    ]
    assert place.take() == [*announcements, [Kind.ENDED, 0, [0, 2], FINISHED, [None, None]]]
    place.call(6, trace, [6])
    await turns()
    assert ran == [0, 2, 6]
    place.send(Kind.CONFIRM, [2, 0])
    await turns()
    assert ran == [0, 2, 6, 1, 4, 3]
    assert (place.begun, place.begun_on_word) == ([7, 0], [4, 0])
    place.send(Kind.CONFIRM, [1])
    await turns()
    assert ran == [0, 2, 6, 1, 4, 3, 5]
    announcer = place.worker._announcer
    assert not (announcer._some or announcer._alone or announcer._proposed)


async def test_no_more_is_launched_because_one_that_waited_has_begun(place: Place) -> None:
    """An announced task has begun, to the host: announcements must not pile up in a full pipe."""
    place.schedule(0, give("waits"), record=CONFIRMED)
    await turns()
    place.pipe.held = True
    place.schedule(1, give("is announced"))
    await turns()
    place.schedule(2, give("is not"))
    place.send(Kind.CONFIRM, [0])
    await turns()
    assert place.begun_on_word == [1, 0]
    assert len([None for _, written in place.pipe._waiting if written is not None]) == 1
    place.pipe.held = False
    place.pipe.flush()
    await turns()
    assert place.begun == [3, 0]


async def test_a_queue_keeps_its_order_and_waits_with_what_waits(make: Make) -> None:
    place = make(Order.FIFO, (1,))
    await place.start()
    place.take()
    ran.clear()
    function = place.shipper.take_function(trace_alone)
    place.tell_definitions()
    records = [None, None, CONFIRMED, None]
    place.send(Kind.SCHEDULE, 0, 0, 0, function, records, ["a", "b", "c", "d"])
    place.call(4, trace_alone, ["e"])
    await turns(20)
    announcements = [[Kind.ANNOUNCED, 0, [0, 1]], [Kind.PROPOSED, 0, [2, 3, 4]]]
    assert [frame for frame in place.take() if frame[0] != Kind.ENDED] == announcements
    assert ran == ["a", "b"]
    place.send(Kind.CONFIRM, [0])
    await turns(40)
    assert ran == ["a", "b", "c", "d", "e"]
    assert (place.begun, place.begun_on_word) == ([5], [0])  # in order


async def test_what_waits_for_its_next_attempt_at_the_head_lets_nothing_by(make: Make) -> None:
    place = make(Order.FIFO, (1,))
    await place.start()
    place.take()
    ran.clear()
    place.schedule(0, trace_and_fail("head"), retry=after(1))
    place.schedule(1, trace_alone("waits"), record=CONFIRMED)
    place.schedule(2, trace_alone("last"))
    await turns(20)
    await place.pass_(1)
    await turns(20)
    assert ran == ["head", "head"]
    place.send(Kind.CONFIRM, [0])
    await turns(20)
    assert ran == ["head", "head", "waits", "last"]


def announced_in(place: Place) -> list[list[int]]:
    return [frame[2] for frame in place.take() if frame[0] == Kind.PROPOSED]


async def test_only_few_tasks_that_would_be_in_doubt_are_announced(place: Place) -> None:
    ran.clear()
    function = place.shipper.take_function(trace)
    place.tell_definitions()
    count = 3 * MOST
    records = [FEW] * count
    place.send(Kind.SCHEDULE, 0, 0, 0, function, records, list(range(count)))
    place.schedule(count, trace("other"))
    await turns()
    index, announced = 0, announced_in(place)
    assert sum(announced, []) == list(range(MOST))
    assert ran == ["other"]  # these do not wait with them
    assert place.worker._announcer.is_held_back(MOST)
    place.send(Kind.CANCEL, 0, [MOST])
    while announced:
        for numbers in announced:
            place.send(Kind.CONFIRM, [index])
            index += 1
            await turns()
            assert ran[-len(numbers) :] == numbers
        announced = announced_in(place)
        assert len(sum(announced, [])) <= MOST
    assert sorted(ran[1:]) == [number for number in range(count) if number != MOST]


async def test_what_is_held_back_was_not_announced_when_its_process_drains(place: Place) -> None:
    function = place.shipper.take_function(trace)
    place.tell_definitions()
    count = MOST + 3
    place.send(Kind.SCHEDULE, 0, 0, 0, function, [FEW] * count, list(range(count)))
    await turns()
    place.take()
    place.send(Kind.DRAIN)
    await turns()
    (unstarted,) = [frame[2] for frame in place.take() if frame[0] == Kind.UNBEGUN]
    assert sorted(unstarted) == list(range(MOST))


async def test_a_queue_with_one_that_is_alone_announces_one_at_a_time(make: Make) -> None:
    place = make(Order.FIFO, (1,))
    await place.start()
    place.take()
    ran.clear()
    function = place.shipper.take_function(trace_alone)
    place.tell_definitions()
    records = [CONFIRMED, ALONE, CONFIRMED, CONFIRMED]
    place.send(Kind.SCHEDULE, 0, 0, 0, function, records, ["a", "b", "c", "d"])
    for index, ahead in enumerate((1, 1, 32, 1)):
        await turns(20)
        assert [f[2] for f in place.take() if f[0] == Kind.PROPOSED] == [[index]]
        assert ran == ["a", "b", "c", "d"][:index]
        assert place.worker._engines[0].ahead == ahead
        place.send(Kind.CONFIRM, [index])
    await turns(20)
    assert ran == ["a", "b", "c", "d"]


async def test_beside_one_that_runs_alone_nothing_is_announced(make: Make) -> None:
    place = make(Order.FIFO, (1,))
    await place.start()
    place.take()
    place.schedule(0, forever(), record=ALONE)
    place.schedule(1, give(1), record=CONFIRMED)
    await turns()
    place.send(Kind.CONFIRM, [0])
    await turns(20)
    assert place.take() == [[Kind.PROPOSED, 0, [0]]]
    place.send(Kind.CANCEL, 0, [0])
    await turns(20)
    assert [frame[:3] for frame in place.take()] == [
        [Kind.ENDED, 0, [0]],
        [Kind.PROPOSED, 0, [1]],
    ]


async def let_one_wait(place: Place) -> object:
    """Make task 0 wait for its payload, which is returned, and task 1 for CONFIRM."""
    ran.clear()
    function, payload, _ = place.shipper.take(trace(b"x" * 40_000))
    place.tell_definitions()
    place.send(Kind.SCHEDULE, 0, 0, 0, function, None, [IN_BLOB])
    place.schedule(1, trace(1), record=CONFIRMED)
    await turns()
    return payload


async def test_a_late_payload_of_a_timed_task_waits_for_nobody(place: Place) -> None:
    payload = await let_one_wait(place)
    assert place.take() == [[Kind.PROPOSED, 0, [1]]]
    place.pipe.receive([Kind.BLOB, 0, payload])
    place.schedule(2, trace(2))
    await turns()
    assert ran == [b"x" * 40_000, 2]
    place.send(Kind.CONFIRM, [0])
    await turns(20)
    assert ran == [b"x" * 40_000, 2, 1]


async def test_late_payloads_that_come_together_are_announced_in_slices(place: Place) -> None:
    """An announced task has begun, to the host: after a death no other process could run it."""
    ran.clear()
    count = 3 * MAX_SLICE
    function, payload, _ = place.shipper.take(trace(b"x" * 40_000))
    place.tell_definitions()
    for first in range(0, count, MAX_SLICE):
        place.send(Kind.SCHEDULE, first, 0, 0, function, None, [IN_BLOB] * MAX_SLICE)
    await turns()
    assert place.take() == []
    for number in range(count):
        place.pipe.receive([Kind.BLOB, number, payload])
    place.send(Kind.CANCEL, 0, [1])
    await turns(40)
    started = [frame[2] for frame in place.take() if frame[0] == Kind.ANNOUNCED]
    assert [len(numbers) for numbers in started] == [MAX_SLICE - 1, MAX_SLICE, MAX_SLICE]
    assert [n for numbers in started for n in numbers] == [n for n in range(count) if n != 1]
    assert len(ran) == count - 1


async def test_a_task_cancelled_before_its_confirm_does_not_begin(make: Make) -> None:
    place = make(confirmed=True)
    await place.start()
    place.take()
    place.call(0, give, [1, 2, 3])
    await turns()
    place.send(Kind.CANCEL, 0, [1])
    place.send(Kind.WITHDRAW, 0, [0])  # it was announced
    await turns()
    assert place.take() == [
        [Kind.PROPOSED, 0, [0, 1, 2]],
        [Kind.ENDED, 0, [1], CANCELLED, [None]],
    ]
    place.send(Kind.CONFIRM, [0])
    await turns()
    assert place.take() == [[Kind.ENDED, 0, [0, 2], FINISHED, [1, 3]]]


async def test_a_drain_gives_back_tasks_that_wait_for_confirm(make: Make) -> None:
    place = make(confirmed=True)
    await place.start()
    place.take()
    place.call(0, give, [1, 2])
    await turns()
    place.worker.drain()
    await asyncio.sleep(0)
    place.send(Kind.CONFIRM, [0])
    await place.serving
    assert place.take() == [
        [Kind.PROPOSED, 0, [0, 1]],
        [Kind.DRAINING],
        [Kind.UNBEGUN, 0, [0, 1]],
        [Kind.DRAINED],
    ]
    assert place.begun_on_word == [0, 0]


async def test_a_close_drops_tasks_that_wait_for_confirm(make: Make) -> None:
    place = make(confirmed=True)
    await place.start()
    place.take()
    place.call(0, give, [1, 2])
    await turns()
    place.send(Kind.CLOSE, 0.0)
    await asyncio.sleep(0)
    place.send(Kind.CONFIRM, [0])
    await place.serving
    assert place.take() == [
        [Kind.PROPOSED, 0, [0, 1]],
        [Kind.UNBEGUN, 0, [0, 1]],
        [Kind.ENDED, 0, [0, 1], CANCELLED, [None, None]],
    ]
    assert place.begun_on_word == [0, 0]


async def test_a_worker_that_fails_begins_nothing_more(make: Make) -> None:
    place = make(confirmed=True)
    await place.start()
    place.call(0, give, [1, 2])
    await turns()
    place.worker._fail(MemoryError())
    place.send(Kind.CONFIRM, [0])
    await place.serving
    assert place.begun_on_word == [0, 0]


@pytest.mark.parametrize(("order", "together"), [(Order.FIFO, 32), (Order.LIFO, 1)])
async def test_a_queue_that_waits_announces_ahead_and_runs_one_at_a_time(
    make: Make, order: Order, together: int
) -> None:
    place = make(order, (1,), confirmed=True)
    await place.start()
    place.take()
    place.call(0, trace_alone, list(range(40)))
    confirmed = 0
    announced: list[int] = []
    ran.clear()
    while len(ran) < 40:
        await turns(4)
        found = [frame[2] for frame in place.take() if frame[0] == Kind.PROPOSED]
        announced += [number for numbers in found for number in numbers]
        assert not confirmed or len(announced) - len(ran) <= together + 1
        if found:
            assert len(found[0]) <= together
            place.send(Kind.CONFIRM, list(range(confirmed, confirmed + len(found))))
            confirmed += len(found)
    assert ran == announced
    assert ran == (list(range(40)) if order is Order.FIFO else list(range(40))[::-1])
    assert confirmed == (2 if order is Order.FIFO else 40)


async def test_a_plain_queue_does_not_announce_ahead_nor_one_that_waits_for_a_payload(
    make: Make,
) -> None:
    place = make(Order.FIFO, (1,))
    await place.start()
    (engine,) = place.worker._engines
    assert engine.ahead == 1
    place.schedule(0, forever())
    await turns()
    place.schedule(1, give(1), record=CONFIRMED)
    assert engine.ahead == 32
    place.send(Kind.SCHEDULE, 2, 0, 0, 0, None, [IN_BLOB])
    assert engine.ahead == 1
    place.send(Kind.CANCEL, 0, [2])
    assert engine.ahead == 32
    place.send(Kind.CANCEL, 0, [1])
    assert engine.ahead == 1


async def test_a_task_that_starts_once_more_waits_again(make: Make) -> None:
    place = make(Order.FIFO, (1,))
    await place.start()
    place.take()
    place.schedule(0, fail("once"), record=CONFIRMED, retry=after(0))
    await turns()
    place.send(Kind.CONFIRM, [0])
    await turns(20)
    assert [frame[0] for frame in place.take()] == [Kind.PROPOSED, Kind.RETRY, Kind.PROPOSED]
    place.send(Kind.CONFIRM, [1])
    await turns()
    (failed,) = place.take()
    assert failed[:4] == [Kind.ENDED, 0, [0], FAILED]


async def test_what_was_announced_ahead_waits_for_an_attempt_that_failed(make: Make) -> None:
    place = make(Order.FIFO, (1,), confirmed=True)
    await place.start()
    place.take()
    ran.clear()
    place.schedule(0, trace_and_fail("once"), retry=after(1))
    place.call(1, trace_alone, ["a", "b"])
    await turns()
    place.send(Kind.CONFIRM, [0])
    await turns()
    announced, retry = place.take()
    assert announced == [Kind.PROPOSED, 0, [0, 1, 2]]
    assert retry[:3] == [Kind.RETRY, 0, [0]]
    assert place.begun == [1]
    await place.pass_(1)
    assert place.take() == [[Kind.PROPOSED, 0, [0]]]
    place.send(Kind.CONFIRM, [1])
    await turns(20)
    assert ran == ["once", "once", "a", "b"]
    ends = [frame[2:4] for frame in place.take() if frame[0] == Kind.ENDED]
    assert sorted(ends) == [[[0], FAILED], [[1], FINISHED], [[2], FINISHED]]


async def test_what_has_its_payload_and_is_not_announced_can_be_withdrawn(place: Place) -> None:
    payload = await let_one_wait(place)
    place.pipe.receive([Kind.BLOB, 0, payload])
    place.send(Kind.WITHDRAW, 0, [0])
    place.send(Kind.CONFIRM, [0])
    await turns(20)
    assert ran == [1]
    assert [Kind.ENDED, 0, [0], CANCELLED, [None]] in place.take()


async def test_one_record_may_be_for_all_tasks_of_a_frame(place: Place) -> None:
    function = place.shipper.take_function(abs)
    place.tell_definitions()
    place.send(Kind.SCHEDULE, 0, 0, 0, function, [CONFIRMED], [-1, -2, -3])
    await turns()
    assert place.take() == [[Kind.PROPOSED, 0, [0, 1, 2]]]
    place.send(Kind.CONFIRM, [0])
    await turns()
    assert place.take() == [[Kind.ENDED, 0, [0, 1, 2], FINISHED, [1, 2, 3]]]
