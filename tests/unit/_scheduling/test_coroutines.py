from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from functools import partial
from types import FunctionType
from typing import Any

import kinds
import pytest

from aioscheduler._scheduling.coroutines import (
    check_awaitable,
    close_unstarted,
    name_of,
    take_apart,
)


async def work(n: int = 0) -> int:
    await asyncio.sleep(n)
    return n


class Awaitable:
    def __await__(self) -> Any:
        yield


async def test_what_can_be_awaited_from_its_beginning_is_taken() -> None:
    coro = work()
    check_awaitable(coro)
    check_awaitable(Awaitable())
    check_awaitable(asyncio.get_running_loop().create_future())
    coro.close()


def test_what_has_begun_or_ended_is_refused() -> None:
    coro: Any = work()
    coro.send(None)
    with pytest.raises(TypeError, match=r"work\(\) has started already"):
        check_awaitable(coro)
    close_unstarted(coro)
    assert coro.cr_suspended  # another caller's: left alone
    coro.close()
    with pytest.raises(TypeError, match=r"work\(\) has been awaited or closed already"):
        check_awaitable(coro)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (work, r"call it, schedule\(work\(...\)\)"),
        (None, "takes a coroutine such as work"),
        (3, "not int"),
        (lambda: None, "not function"),
    ],
)
def test_what_is_no_awaitable_is_refused_with_a_hint(wrong: Any, hint: str) -> None:
    with pytest.raises(TypeError, match=hint):
        check_awaitable(wrong)
    with pytest.raises(TypeError, match=hint.replace("schedule", "repeat")):
        check_awaitable(wrong, "repeat")


def test_a_coroutine_that_will_not_run_is_closed() -> None:
    coro: Any = work()
    close_unstarted(coro)
    assert coro.cr_frame is None
    close_unstarted(None)  # whatever was refused


async def test_functions_and_coroutines_say_their_names() -> None:
    coro = work()
    assert name_of(coro) == name_of(work) == f"{__name__}:work"
    await coro
    assert name_of(coro) == "work"
    assert name_of(len) == "builtins:len"
    assert name_of(partial(work)).endswith("partial")


@pytest.fixture(params=[0, 3], ids=["as ever", "debug mode"])
def origins(request: pytest.FixtureRequest) -> Iterator[None]:
    """As in asyncio's debug mode: coroutines know where they were made."""
    before = sys.get_coroutine_origin_tracking_depth()
    sys.set_coroutine_origin_tracking_depth(request.param)
    yield
    sys.set_coroutine_origin_tracking_depth(before)


@pytest.mark.usefixtures("origins")
@pytest.mark.parametrize("kind", kinds.ASYNC)
async def test_a_coroutine_taken_apart_can_be_recreated(kind: str) -> None:
    function, args, kwargs, expected = kinds.ASYNC[kind]
    coro = function(*args, **kwargs)
    again, positional, keywords = take_apart(coro, "this")
    assert [await again(*positional, **keywords) for _ in range(2)] == [expected] * 2
    assert await coro == expected  # it is unchanged


async def test_arguments_are_the_same_objects_each_time() -> None:
    async def look(*args: Any, one: list[int], **kwargs: Any) -> list[Any]:
        given = [*args, one, *kwargs.values()]
        kwargs.clear()
        return given

    objects: list[Any] = [[], [], []]
    coro = look(objects[0], one=objects[1], other=objects[2])
    function, args, kwargs = take_apart(coro, "this")
    for awaitable in (coro, function(*args, **kwargs)):
        assert all(a is b for a, b in zip(await awaitable, objects, strict=True))


@pytest.mark.parametrize("wrong", [Awaitable(), partial(work)])
def test_only_a_coroutine_can_be_taken_apart(wrong: Any) -> None:
    kind = type(wrong).__name__
    with pytest.raises(TypeError, match=f"a {kind} cannot be recreated: wrap it in an async def"):
        take_apart(wrong, "this")


async def other() -> None: ...


def test_a_call_of_exchanged_code_cannot_be_repeated() -> None:
    function = FunctionType(work.__code__, globals(), "work", (0,))
    coro: Any = function(1)
    function.__code__ = other.__code__
    with pytest.raises(TypeError, match=r"code of work\(\) was exchanged after the call"):
        take_apart(coro, "this")
    coro.close()
