"""Requests of tasks to their manager."""

from __future__ import annotations

import threading

import pytest
from propagated import request_id
from scripted import Script
from solo import NOW, Make, Rig, give
from turning import turns

from aioscheduler import current_manager, current_task
from aioscheduler._scheduling.timers import NUMBER_BITS
from aioscheduler._shipping.payloads import names_in
from aioscheduler._shipping.propagation import Propagation
from aioscheduler._transport import wire
from aioscheduler._transport.entry import InsideRequest
from aioscheduler._transport.wire import FINISHED, Kind
from aioscheduler.errors import NotShippable, UnknownTask
from aioscheduler.task import TaskRef


async def successor(key: str | None) -> tuple[TaskRef, TaskRef]:
    ref = current_manager().schedule(give("next"), key=key)
    return current_task(), ref


async def test_a_successor_is_sent_before_the_outcome_of_its_task(rig: Rig) -> None:
    rig.schedule(3, successor(None), scheduler=1)
    await turns()
    started, asked, finished = rig.take()
    assert started == [Kind.ANNOUNCED, 1, [3]]
    assert (asked[0], asked[2]) == (Kind.INSIDE, True)
    what, *fields = wire.unpack(asked[1])
    request = InsideRequest(*fields)
    assert (what, request.place, request.due) == (
        "schedule",
        1,
        NOW,
    )  # on the scheduler of the task that asks
    assert (request.payload, request.options, request.captured) == ("next", None, None)
    assert finished[:4] == [Kind.ENDED, 1, [3], FINISHED]
    own, ref = rig.shipper.catalog.decode_result(finished[4][0])
    assert (own, ref) == (TaskRef("ab", 0, 1, 3), TaskRef("ab", 0, 1, request.alias))


async def test_no_two_processes_give_one_number_to_two_tasks(make: Make) -> None:
    aliases = set()
    for generation in (0, 1):
        rig = make(layout=(1, 1), generation=generation)
        await rig.start()
        for number in (0, 1):
            rig.schedule(number, successor(None))
        await turns(20)
        asked = [frame for frame in rig.take() if frame[0] == Kind.INSIDE]
        aliases |= {InsideRequest(*wire.unpack(frame[1])[1:]).alias for frame in asked}
    assert len(aliases) == 4
    assert min(aliases) >= 1 << NUMBER_BITS  # nor a number of the host's


async def test_a_request_that_cannot_be_sent_is_refused_and_ends_it(rig: Rig) -> None:
    rig.pipe.fails = MemoryError("no room")
    with pytest.raises(MemoryError):
        rig.worker._upstream.cancel_inside(TaskRef("ab", 0, 1, 5))
    rig.pipe.fails = None
    await rig.serving
    assert rig.take() == []  # not even the report of its failure could be sent


async def test_a_damaged_reference_is_refused_here(rig: Rig) -> None:
    durable = TaskRef("51" * 16, -1, -1, 5)  # there is no store
    for ref in (TaskRef("ab", 1, 0, 5), TaskRef("ba", 0, 0, 5), durable):
        with pytest.raises(UnknownTask):
            rig.worker._upstream.cancel_inside(ref)
    assert rig.worker._upstream.cancel_inside(TaskRef("ab", 0, 1, 5))
    await turns()
    ((kind, request, last),) = rig.take()
    assert (kind, wire.unpack(request), last) == (Kind.INSIDE, ["cancel", "ab", 0, 1, 5], True)


async def test_only_the_host_knows_the_store_of_a_durable_reference(make: Make) -> None:
    rig = make(has_store=True)
    await rig.start()
    ref = TaskRef("51" * 16, -1, -1, 5)
    assert rig.worker._upstream.cancel_inside(ref)
    await turns()
    ((kind, request, _),) = [frame for frame in rig.take() if frame[0] == Kind.INSIDE]
    assert (kind, wire.unpack(request)) == (Kind.INSIDE, ["cancel", *ref])
    for odd in (ref._replace(scheduler=0), ref._replace(worker=0), ref._replace(number="5")):  # type: ignore[arg-type]
        with pytest.raises(UnknownTask):
            rig.worker._upstream.cancel_inside(odd)


async def test_a_successor_has_what_the_task_has_when_it_schedules_it(make: Make) -> None:
    rig = make()
    rig.shipper.catalog.propagation = Propagation((request_id,))
    await rig.start(rig.shipper.take_call(None, ()))
    for number, value in enumerate(("of a task", ("a", "pair"), None)):
        record = None if value is None else rig.shipper.take_record(None, [1, "of the host"])
        rig.schedule(number, set_and_schedule(value), record=record)
        await turns()
    asked = [frame for frame in rig.take() if frame[0] == Kind.INSIDE]
    plain, pickled, none = (InsideRequest(*wire.unpack(frame[1])[1:]) for frame in asked)
    assert rig.shipper.catalog.decode(plain.captured) == [1, "of a task"]
    assert rig.shipper.catalog.decode(pickled.captured) == [1, ("a", "pair")]
    assert none.captured is None


async def set_and_schedule(value: object) -> None:
    if value is not None:
        request_id.set(value)
    current_manager().schedule(give("next"))


async def test_a_context_says_which_definitions_it_names(make: Make) -> None:
    with Script("class User: pass") as script:
        rig = make()
        rig.shipper.catalog.propagation = Propagation((request_id,))
        await rig.start(rig.shipper.take_call(None, ()))
        rig.schedule(0, set_and_schedule(script.User()))
        await turns()
        (asked,) = [frame for frame in rig.take() if frame[0] == Kind.INSIDE]
        request = InsideRequest(*wire.unpack(asked[1])[1:])
        line = rig.shipper.catalog.line_of_class(script.User)
        assert names_in(request.captured) == [line]


async def test_a_task_whose_context_cannot_travel_is_no_successor(make: Make) -> None:
    rig = make()
    rig.shipper.catalog.propagation = Propagation((request_id,))
    await rig.start(rig.shipper.take_call(None, ()))
    rig.take()
    rig.schedule(0, schedule_with_a_lock())
    await turns()
    started, finished = rig.take()
    assert started == [Kind.ANNOUNCED, 0, [0]]
    error = rig.failure(finished[4][0])
    assert isinstance(error, NotShippable)
    assert "the value of the context variable 'request_id' cannot travel" in str(error)


async def schedule_with_a_lock() -> None:
    request_id.set(threading.Lock())
    current_manager().schedule(give("next"))
