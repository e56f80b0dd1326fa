from __future__ import annotations

import asyncio
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fakelinks import make

from aioscheduler._routing.hostupstream import HostUpstream
from aioscheduler._routing.submission import submit
from aioscheduler._scheduling.coroutines import check_awaitable
from aioscheduler._scheduling.order import Order
from aioscheduler._shipping.hostcatalog import HostCatalog
from aioscheduler._shipping.propagation import Propagation
from aioscheduler._transport.entry import InsideRequest
from aioscheduler.errors import ManagerClosed, UnknownTask
from aioscheduler.task import TaskRef


async def work(n: int = 0) -> int:
    return n


def test_tasks_go_to_the_least_loaded_place() -> None:
    router, links = make([2, 1])
    for _ in range(4):
        router.schedule(work(), None, None, {})
    assert [[entry[0] for entry in link.scheduled] for link in links] == [[0, 1], [0, 0]]
    assert router.placement.all_waiting == 4


def test_a_handle_shows_the_time_as_it_was_given() -> None:
    router, (link,) = make([1])
    soon = datetime.now(UTC) + timedelta(hours=1)
    assert router.schedule(work(), soon, None, {}).priority is soon
    later = router.schedule(work(), timedelta(hours=1), None, {}).priority
    assert isinstance(later, datetime)
    assert timedelta(0) <= later - soon < timedelta(minutes=1)
    queue, _ = make([1], Order.FIFO)
    assert queue.schedule(work(), None, None, {}).priority == 0


@pytest.mark.parametrize(
    ("when", "key", "error"),
    [
        (datetime(2000, 1, 1), None, ValueError),
        (3, None, TypeError),
        (None, 1.5, TypeError),
    ],
)
def test_a_refused_coroutine_is_closed_and_not_counted(when: Any, key: Any, error: Any) -> None:
    router, (link,) = make([1])
    coro: Any = work()
    with pytest.raises(error):
        router.schedule(coro, when, key, {})
    assert coro.cr_frame is None
    assert not link.scheduled
    assert not router.placement.all_loads


def test_nothing_is_accepted_once_closed() -> None:
    router, (link,) = make([1])
    router.closed = ManagerClosed("over")
    coro: Any = work()
    for call in (
        lambda: router.schedule(coro, None, None, {}),
        lambda: submit(router, work, [(1,)], None, None, {}),
        lambda: HostUpstream("m", router).schedule_inside(
            work(), None, None, None, {}, None, False
        ),
    ):
        with pytest.raises(ManagerClosed, match="over"):
            call()
    assert coro.cr_frame is None


@pytest.mark.parametrize("when", [None, 3, timedelta(-1)])
@pytest.mark.parametrize("order", Order)
def test_a_function_that_was_not_called_is_refused_first(
    monkeypatch: pytest.MonkeyPatch, when: Any, order: Order
) -> None:
    router, _ = make([1])
    router.order = order
    monkeypatch.setattr(router.links[0].shipper, "take", check_take)
    func: Any = work
    with pytest.raises(TypeError, match=r"call it, schedule\(work\(...\)\)") as told:
        router.schedule(func, when, None, {})
    assert told.value.__cause__ is None
    with pytest.raises(TypeError, match="call it, schedule"):
        HostUpstream("m", router).schedule_inside(func, when, None, None, {}, None, False)


def check_take(coro: Any, options: Any) -> Any:
    check_awaitable(coro)


def test_a_reference_leads_to_its_link() -> None:
    router, links = make([2, 1])
    found: Any = router.locate(TaskRef("m", 1, 0, 5))
    assert found == (links[1], 0, 5)


@pytest.mark.parametrize(
    "ref",
    [
        TaskRef("other", 0, 0, 0),
        TaskRef("m", 2, 0, 0),
        TaskRef("m", 1, 1, 0),
        TaskRef("m", -1, 0, 0),
        TaskRef("m", 0, 0, -1),
        TaskRef("m", 0, 0, "0"),  # type: ignore[arg-type]
        TaskRef("m", True, 0, 0),
    ],
)
def test_a_damaged_reference_is_refused(ref: TaskRef) -> None:
    router, _ = make([2, 1])
    with pytest.raises(UnknownTask):
        router.locate(ref)
    with pytest.raises(UnknownTask):
        HostUpstream("m", router).cancel_inside(ref)


async def test_join_waits_for_the_last_end() -> None:
    router, _ = make([1, 1])
    router.schedule(work(), None, None, {})
    router.schedule(work(), None, None, {})
    joining = asyncio.create_task(router.join())
    router.placement.count_waiting(0, 0, -1)
    router.placement.count_ended(0, 0, 1)
    await asyncio.sleep(0)
    assert not joining.done()
    router.placement.count_emptied(1)
    await joining
    await router.join()


def test_what_a_worker_asks_is_entered_even_at_the_limit() -> None:
    router, links = make([1, 1], max_tasks=1)
    router.schedule(work(), None, None, {})
    catalog = HostCatalog()
    places: Any = links
    asked = InsideRequest(1, 77, "asyncio:sleep", b"args", [], None, None, 1 << 48, None, False)
    upstream = HostUpstream("m", router)
    upstream.asked_inside(places, catalog, "schedule", *asked)
    upstream.asked_inside(places, catalog, "cancel", "m", 1, 0, 1 << 48)
    assert links[1].adopted == [(0, 77, (0, b"args", None), 1 << 48)]
    assert links[1].cancelled == [(0, 1 << 48)]
    assert router.placement.loads == [1, 1]
    router.closed = ManagerClosed("over")
    upstream.asked_inside(places, catalog, "schedule", *asked._replace(alias=2 << 48))
    assert len(links[1].adopted) == 1


def test_a_task_here_schedules_beside_itself() -> None:
    router, (link,) = make([3])
    upstream = HostUpstream("m", router)
    ref = upstream.schedule_inside(work(), None, None, TaskRef("m", 0, 2, 9), {}, None, False)
    assert ref.scheduler == link.scheduled[0][0] == 2


request_id: ContextVar[str] = ContextVar("request_id")
NOBODY: dict[str, str] = {}


def test_what_goes_with_a_task_is_captured_once_for_each_call() -> None:
    router, (link,) = make([2])
    calls: list[str] = []
    router.propagation = Propagation((request_id, (lambda: calls.append("captured"), print)))
    token = request_id.set("r1")
    options = {"name": "one"}
    router.schedule(work(), None, None, {})
    router.schedule(work(), None, None, options, [3, "r0", None])  # type: ignore[arg-type]
    router.schedule_once(work(), None, None, {}, "an id", False)
    HostUpstream("m", router).schedule_inside(work(), None, None, None, {}, None, False)
    submit(router, work, [(1,)] * 4, None, None, {})
    router.schedule(work(), None, None, {}, [0])  # in another thread nothing had a value
    request_id.reset(token)
    named, *others = link.scheduled[1][3], *(row[3] for row in link.scheduled), *link.records
    assert (named[0].name, named[1]) == ("one", [3, "r0", None])
    others.remove(named)
    others.remove((None, [0]))
    assert others == [(None, [3, "r1", None])] * 5
    assert len(calls) == 4


def test_whose_context_cannot_be_captured_is_refused_and_closed() -> None:
    router, (link,) = make([1])
    router.propagation = Propagation(((lambda: NOBODY["user"], print),))
    schedule, once = router.schedule, router.schedule_once
    inside = HostUpstream("m", router).schedule_inside
    for call, *args in (
        (schedule, {}),
        (once, {}, "an id", False),
        (inside, None, {}, None, False),
    ):
        with pytest.raises(KeyError, match="user") as caught:  # and no warning about a coroutine
            call(work(), None, None, *args)  # type: ignore[operator]
        assert "was called to capture" in caught.value.__notes__[0]
    with pytest.raises(KeyError):
        submit(router, work, [(1,)], None, None, {})
    assert (link.scheduled, link.many, router.placement.all_loads) == ([], [], 0)
