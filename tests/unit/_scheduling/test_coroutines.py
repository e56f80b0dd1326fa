from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from aioscheduler._scheduling.coroutines import check_awaitable, close_unstarted, name_of


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
    assert coro.cr_suspended  # somebody else's: left alone
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
