"""Frames of the host, and their effects on the schedulers."""

from __future__ import annotations

import pytest
from solo import LATER, NOW, Make, Rig, forever, give
from turning import turns

from aioscheduler import current_attempt
from aioscheduler._scheduling.clock import SECOND
from aioscheduler._scheduling.order import Order
from aioscheduler._scheduling.shiftedclock import ShiftedClock
from aioscheduler._transport import wire
from aioscheduler._transport.wire import CANCELLED, FAILED, FINISHED, IN_BLOB, Kind


async def test_nonsense_of_the_host_ends_it_loudly(rig: Rig) -> None:
    with pytest.raises(wire.WireError, match="a host does not send READY"):
        rig.send(Kind.READY)
    rig.pipe.closed(wire.WireError("nonsense"))  # as the pipe reports an error of `receive`
    await rig.serving
    ((kind, text),) = rig.take()
    assert kind == Kind.FATAL
    assert "WireError: nonsense" in text


async def test_a_clock_that_is_the_machines_own_is_not_set_by_the_host(rig: Rig) -> None:
    with pytest.raises(wire.WireError, match="a host does not send CLOCK"):
        rig.send(Kind.CLOCK, 5)


async def test_the_host_sets_the_lead_of_a_clock_on_another_machine(rig: Rig) -> None:
    clock = ShiftedClock(7)
    rig.worker._clock = clock
    rig.send(Kind.CLOCK, 12)
    assert clock.lead == 12


async def test_a_frame_has_columns_or_one_value_for_all(rig: Rig) -> None:
    function = rig.shipper.take_function(abs)
    rig.tell_definitions()
    rig.send(
        Kind.SCHEDULE, [3, 1], [1, 0], [0, LATER], [function, function], [None, None], [-5, -6]
    )
    await turns()
    assert rig.take() == [[Kind.ANNOUNCED, 1, [3]], [Kind.ENDED, 1, [3], FINISHED, [5]]]
    rig.send(Kind.CANCEL, 0, [1])
    await turns()
    assert rig.take() == [[Kind.ENDED, 0, [1], CANCELLED, [None]]]


async def test_a_frame_that_cannot_be_taken_fails_its_own_tasks(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.send(Kind.SCHEDULE, 3, 0, "when?", 0, None, [1, 2])
    rig.schedule(5, give(1), scheduler=1)
    await turns()
    frames = rig.take()
    # The host accepts no outcome of a task that was not announced.
    assert frames[:2] == [[Kind.ANNOUNCED, 0, [3]], [Kind.ANNOUNCED, 0, [4]]]
    failed, finished = (frame for frame in frames if frame[0] == Kind.ENDED)
    assert failed[:4] == [Kind.ENDED, 0, [3, 4], FAILED]
    assert [type(rig.failure(payload)) for payload in failed[4]] == [TypeError, TypeError]
    assert finished == [Kind.ENDED, 1, [5], FINISHED, [1]]
    assert "2 tasks cannot be accepted by this worker, and fail" in caplog.text


async def test_a_waiting_task_that_is_cancelled_is_never_announced(rig: Rig) -> None:
    rig.schedule(0, give(1), LATER)
    rig.schedule(1, forever())
    await turns()
    rig.take()
    rig.send(Kind.CANCEL, 0, [0, 1, 77])  # the last has ended meanwhile
    await turns()
    assert rig.take() == [
        [Kind.ENDED, 0, [0], CANCELLED, [None]],
        [Kind.ENDED, 0, [1], CANCELLED, [None]],
    ]
    assert rig.begun[0] == 2


# ---- tasks that are withdrawn, and come back


async def test_what_was_not_announced_is_withdrawn(rig: Rig) -> None:
    rig.schedule(0, give(1), LATER)
    rig.schedule(1, forever())
    rig.send(Kind.SCHEDULE, 2, 0, 0, 0, None, [IN_BLOB])
    rig.schedule(3, give(1), LATER, scheduler=1)
    await turns()
    assert rig.take() == [[Kind.ANNOUNCED, 0, [1]]]
    rig.send(Kind.WITHDRAW, 0, [0, 1, 2, 77])
    await turns()
    assert rig.take() == [[Kind.ENDED, 0, [0, 2], CANCELLED, [None, None]]]
    assert list(rig.worker._engines[0].running) == [1]
    assert list(rig.worker._engines[1].waiting) == [3]


async def test_an_announcement_on_its_way_is_left_alone(rig: Rig) -> None:
    rig.pipe.held = True
    rig.schedule(0, give(1))
    await turns()
    rig.send(Kind.WITHDRAW, 0, [0])
    rig.pipe.held = False
    rig.pipe.flush()
    await turns()
    assert rig.take() == [[Kind.ANNOUNCED, 0, [0]], [Kind.ENDED, 0, [0], FINISHED, [1]]]


@pytest.mark.parametrize("seconds", [1, 3])
async def test_what_was_withdrawn_comes_back_for_another_time_or_the_same(
    rig: Rig, seconds: int
) -> None:
    rig.schedule(0, give("moved"), NOW + SECOND)
    rig.schedule(1, give("stays"), NOW + 2 * SECOND)
    rig.send(Kind.WITHDRAW, 0, [0])
    rig.schedule(
        0, give("again"), NOW + seconds * SECOND, record=wire.make_record(wire.More(attempt=2))
    )
    await turns()
    assert rig.take() == [[Kind.ENDED, 0, [0], CANCELLED, [None]]]
    found = []
    for _ in range(5):
        await rig.pass_(1)
        found.append([value for f in rig.take() if f[0] == Kind.ENDED for value in f[4]])
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


async def test_a_second_frame_brings_its_own_attempt_and_scheduler_columns(rig: Rig) -> None:
    for number in range(4):
        rig.schedule(number, attempt(), LATER, scheduler=number % 2)
    for scheduler in (0, 1):
        rig.send(Kind.WITHDRAW, scheduler, [scheduler, scheduler + 2])
    function, payload, _ = rig.shipper.take(attempt())
    records = [wire.make_record(wire.More(attempt=2 + n)) for n in range(3)]
    rig.send(Kind.SCHEDULE, [0, 1, 3], [0, 1, 1], [0, LATER, 0], function, records, [payload] * 3)
    rig.schedule(4, attempt())
    await turns()
    ends = [frame for frame in rig.take() if frame[0] == Kind.ENDED and frame[3] == FINISHED]
    assert sorted(ends) == [
        [Kind.ENDED, 0, [0, 4], FINISHED, [2, 1]],
        [Kind.ENDED, 1, [3], FINISHED, [4]],
    ]
    await rig.pass_(1)
    assert rig.take()[-1] == [Kind.ENDED, 1, [1], FINISHED, [3]]


async def test_its_large_payload_comes_again(rig: Rig) -> None:
    function, payload, _ = rig.shipper.take(give(b"x" * 40_000))
    rig.tell_definitions()
    for due in (LATER, NOW):
        rig.send(Kind.SCHEDULE, 0, 0, due, function, None, [IN_BLOB])
        if due == NOW:
            await turns()
            assert not [frame for frame in rig.take() if frame[0] == Kind.ANNOUNCED]
        rig.pipe.receive([Kind.BLOB, 0, payload])
        if due == LATER:
            rig.send(Kind.WITHDRAW, 0, [0])
    await turns()
    assert rig.take()[-1] == [Kind.ENDED, 0, [0], FINISHED, [IN_BLOB]]
    assert rig.worker._announcer._blobs == {}


async def test_a_task_that_is_here_cannot_be_sent_again(rig: Rig) -> None:
    rig.schedule(0, forever())
    rig.schedule(1, give(1), LATER)
    await turns()
    for number in (0, 1):
        with pytest.raises(wire.WireError, match="was sent again, and is still here"):
            rig.schedule(number, give(1))


async def test_a_queue_takes_back_what_was_withdrawn_as_a_new_one(make: Make) -> None:
    rig = make(Order.FIFO, (1,))
    await rig.start()
    rig.schedule(0, forever())
    await turns()
    for number in (1, 2):
        rig.schedule(number, give(number))
    rig.send(Kind.WITHDRAW, 0, [1])
    rig.schedule(1, give("again"))
    rig.send(Kind.CANCEL, 0, [0])
    await turns(20)
    ends = [frame for frame in rig.take() if frame[0] == Kind.ENDED]
    values = [value for frame in ends for value in frame[4] if value is not None]
    assert values == [2, "again"]
