from __future__ import annotations

from contextvars import copy_context
from datetime import timedelta
from typing import Any

import pytest

from aioscheduler._scheduling.loopthread import LoopThread
from aioscheduler.inside import ManagerProxy, current_manager, current_task, running
from aioscheduler.task import TaskRef

HERE = TaskRef("m", 1, 2, 3)


class Upstream:
    def __init__(self) -> None:
        self.asked: list[Any] = []

    def schedule_inside(self, *request: Any) -> TaskRef:
        self.asked.append(request)
        return HERE

    def cancel_inside(self, ref: TaskRef) -> bool:
        self.asked.append(ref)
        return True


def test_a_task_knows_itself_and_its_manager() -> None:
    upstream = Upstream()
    proxy = ManagerProxy(upstream, LoopThread("manager"))

    def inside() -> None:
        running.set(((proxy, *HERE[:3], lambda: 5_000_000_000), HERE.number, 3_000_000_000, 2))
        assert current_task() == HERE
        assert current_manager() is proxy
        assert proxy.schedule("coro", timedelta(1), key="k", id="x", replace=True) == HERE  # type: ignore[arg-type]
        assert proxy.cancel(HERE)
        # Another manager's proxy, passed along, say, has no task of its own here.
        ManagerProxy(upstream, LoopThread("manager")).schedule("other")  # type: ignore[arg-type]

    copy_context().run(inside)
    assert upstream.asked == [
        ("coro", timedelta(1), "k", HERE, {}, "x", True),
        HERE,
        ("other", None, None, None, {}, None, False),
    ]


@pytest.mark.parametrize("ask", [current_task, current_manager])
def test_outside_there_is_a_clear_error(ask: Any) -> None:
    with pytest.raises(RuntimeError, match=f"{ask.__name__}.. is for tasks that a Manager runs"):
        ask()


@pytest.mark.parametrize("wrong", [None, 3, "m/1/2/3", ("m", 1, 2, 3)])
def test_only_a_reference_can_be_cancelled(wrong: Any) -> None:
    with pytest.raises(TypeError, match="TaskRef"):
        ManagerProxy(Upstream(), LoopThread("manager")).cancel(wrong)


def test_what_only_the_host_has_is_refused_with_what_there_is() -> None:
    proxy: Any = ManagerProxy(Upstream(), LoopThread("manager"))
    with pytest.raises(
        AttributeError,
        match=r"^'ManagerProxy' object has no attribute 'dead_letters': inside a task a manager "
        r"has only schedule\(\) and cancel\(\); all else is for the program that made it$",
    ) as caught:
        _ = proxy.dead_letters
    assert (caught.value.name, caught.value.obj) == ("dead_letters", proxy)
    assert not hasattr(proxy, "stats")
    with pytest.raises(AttributeError, match="^'ManagerProxy' object has no attribute '_router'$"):
        _ = proxy._router
    with pytest.raises(AttributeError, match="attribute '_upstream'$"):
        _ = object.__new__(ManagerProxy)._upstream
