"""Frames of the host, and their effects on the schedulers."""

from __future__ import annotations

import pytest
from solo import LATER, NOW, Make, Place, forever, give
from turning import turns

from aioscheduler import current_attempt
from aioscheduler._scheduling.clock import SECOND
from aioscheduler._scheduling.order import Order
from aioscheduler._scheduling.shiftedclock import ShiftedClock
from aioscheduler._transport import wire
from aioscheduler._transport.wire import CANCELLED, FAILED, FINISHED, IN_BLOB, Kind


async def test_nonsense_of_the_host_ends_it_loudly(place: Place) -> None:
    with pytest.raises(wire.WireError, match="a host does not send READY"):
        place.send(Kind.READY)
    place.pipe.closed(wire.WireError("nonsense"))  # as the pipe reports an error of `receive`
    await place.serving
    ((kind, text),) = place.take()
    assert kind == Kind.FATAL
    assert "WireError: nonsense" in text


async def test_a_clock_that_is_the_machines_own_is_not_set_by_the_host(place: Place) -> None:
    with pytest.raises(wire.WireError, match="a host does not send CLOCK"):
        place.send(Kind.CLOCK, 5)


async def test_the_host_sets_the_lead_of_a_clock_on_another_machine(place: Place) -> None:
    clock = ShiftedClock(7)
    place.worker._clock = clock
    place.send(Kind.CLOCK, 12)
    assert clock.lead == 12


async def test_a_frame_has_columns_or_one_value_for_all(place: Place) -> None:
    function = place.shipper.take_function(abs)
    place.tell_definitions()
    place.send(
        Kind.SCHEDULE, [3, 1], [1, 0], [0, LATER], [function, function], [None, None], [-5, -6]
    )
    await turns()
    assert place.take() == [[Kind.ANNOUNCED, 1, [3]], [Kind.ENDED, 1, [3], FINISHED, [5]]]
    place.send(Kind.CANCEL, 0, [1])
    await turns()
    assert place.take() == [[Kind.ENDED, 0, [1], CANCELLED, [None]]]


async def test_a_frame_that_cannot_be_taken_fails_its_own_tasks(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.send(Kind.SCHEDULE, 3, 0, "when?", 0, None, [1, 2])
    place.schedule(5, give(1), scheduler=1)
    await turns()
    frames = place.take()
    # The host accepts no outcome of a task that was not announced.
    assert frames[:2] == [[Kind.ANNOUNCED, 0, [3]], [Kind.ANNOUNCED, 0, [4]]]
    failed, finished = (frame for frame in frames if frame[0] == Kind.ENDED)
    assert failed[:4] == [Kind.ENDED, 0, [3, 4], FAILED]
    assert [type(place.failure(payload)) for payload in failed[4]] == [TypeError, TypeError]
    assert finished == [Kind.ENDED, 1, [5], FINISHED, [1]]
    assert "2 tasks cannot be accepted by this worker, and fail" in caplog.text


async def test_a_waiting_task_that_is_cancelled_is_never_announced(place: Place) -> None:
    place.schedule(0, give(1), LATER)
    place.schedule(1, forever())
    await turns()
    place.take()
    place.send(Kind.CANCEL, 0, [0, 1, 77])  # the last has ended meanwhile
    await turns()
    assert place.take() == [
        [Kind.ENDED, 0, [0], CANCELLED, [None]],
        [Kind.ENDED, 0, [1], CANCELLED, [None]],
    ]
    assert place.begun[0] == 2


# ---- tasks that are withdrawn, and come back


async def test_what_was_not_announced_is_withdrawn(place: Place) -> None:
    place.schedule(0, give(1), LATER)
    place.schedule(1, forever())
    place.send(Kind.SCHEDULE, 2, 0, 0, 0, None, [IN_BLOB])
    place.schedule(3, give(1), LATER, scheduler=1)
    await turns()
    assert place.take() == [[Kind.ANNOUNCED, 0, [1]]]
    place.send(Kind.WITHDRAW, 0, [0, 1, 2, 77])
    await turns()
    assert place.take() == [[Kind.ENDED, 0, [0, 2], CANCELLED, [None, None]]]
    assert list(place.worker._engines[0].running) == [1]
    assert list(place.worker._engines[1].waiting) == [3]


async def test_an_announcement_on_its_way_is_left_alone(place: Place) -> None:
    place.pipe.held = True
    place.schedule(0, give(1))
    await turns()
    place.send(Kind.WITHDRAW, 0, [0])
    place.pipe.held = False
    place.pipe.flush()
    await turns()
    assert place.take() == [[Kind.ANNOUNCED, 0, [0]], [Kind.ENDED, 0, [0], FINISHED, [1]]]


@pytest.mark.parametrize("seconds", [1, 3])
async def test_what_was_withdrawn_comes_back_for_another_time_or_the_same(
    place: Place, seconds: int
) -> None:
    place.schedule(0, give("moved"), NOW + SECOND)
    place.schedule(1, give("stays"), NOW + 2 * SECOND)
    place.send(Kind.WITHDRAW, 0, [0])
    place.schedule(
        0, give("again"), NOW + seconds * SECOND, record=wire.make_record(wire.More(attempt=2))
    )
    await turns()
    assert place.take() == [[Kind.ENDED, 0, [0], CANCELLED, [None]]]
    found = []
    for _ in range(5):
        await place.pass_(1)
        found.append([value for f in place.take() if f[0] == Kind.ENDED for value in f[4]])
    assert (
        found == [["again"], ["stays"], [], [], []]
        if seconds == 1
        else [
            [],
            ["stays"],
            ["again"],
            [],
            [],
        ]
    )


async def attempt() -> int:
    return current_attempt()


async def test_a_second_frame_brings_its_own_attempt_and_scheduler_columns(place: Place) -> None:
    for number in range(4):
        place.schedule(number, attempt(), LATER, scheduler=number % 2)
    for scheduler in (0, 1):
        place.send(Kind.WITHDRAW, scheduler, [scheduler, scheduler + 2])
    function, payload, _ = place.shipper.take(attempt())
    records = [wire.make_record(wire.More(attempt=2 + n)) for n in range(3)]
    place.send(Kind.SCHEDULE, [0, 1, 3], [0, 1, 1], [0, LATER, 0], function, records, [payload] * 3)
    place.schedule(4, attempt())
    await turns()
    ends = [frame for frame in place.take() if frame[0] == Kind.ENDED and frame[3] == FINISHED]
    assert sorted(ends) == [
        [Kind.ENDED, 0, [0, 4], FINISHED, [2, 1]],
        [Kind.ENDED, 1, [3], FINISHED, [4]],
    ]
    await place.pass_(1)
    assert place.take()[-1] == [Kind.ENDED, 1, [1], FINISHED, [3]]


async def test_its_large_payload_comes_again(place: Place) -> None:
    function, payload, _ = place.shipper.take(give(b"x" * 40_000))
    place.tell_definitions()
    for due in (LATER, NOW):
        place.send(Kind.SCHEDULE, 0, 0, due, function, None, [IN_BLOB])
        if due == NOW:
            await turns()
            assert not [frame for frame in place.take() if frame[0] == Kind.ANNOUNCED]
        place.pipe.receive([Kind.BLOB, 0, payload])
        if due == LATER:
            place.send(Kind.WITHDRAW, 0, [0])
    await turns()
    assert place.take()[-1] == [Kind.ENDED, 0, [0], FINISHED, [IN_BLOB]]
    assert place.worker._announcer._blobs == {}


async def test_a_task_that_is_here_cannot_be_sent_again(place: Place) -> None:
    place.schedule(0, forever())
    place.schedule(1, give(1), LATER)
    await turns()
    for number in (0, 1):
        with pytest.raises(wire.WireError, match="was sent again, and is still here"):
            place.schedule(number, give(1))


async def test_a_queue_takes_back_what_was_withdrawn_as_a_new_one(make: Make) -> None:
    place = make(Order.FIFO, (1,))
    await place.start()
    place.schedule(0, forever())
    await turns()
    for number in (1, 2):
        place.schedule(number, give(number))
    place.send(Kind.WITHDRAW, 0, [1])
    place.schedule(1, give("again"))
    place.send(Kind.CANCEL, 0, [0])
    await turns(20)
    ends = [frame for frame in place.take() if frame[0] == Kind.ENDED]
    values = [value for frame in ends for value in frame[4] if value is not None]
    assert values == [2, "again"]
