"""The work of a repeat: the same call, for every run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest
import repeated

from aioscheduler import NotShippable, Retry
from aioscheduler._repeating.policy import Run
from aioscheduler._routing.runs import (
    MOST_SHARED,
    DurableWork,
    LocalWork,
    RemoteWork,
    repeat_of,
    run_id,
    sharing,
    take_work,
)
from aioscheduler._scheduling.clock import SECOND
from aioscheduler._transport import wire
from aioscheduler.testing import FakeClock, FakeManager

NOW = 1_893_456_000 * SECOND
AT_ONCE, LATER = Run(NOW, NOW), Run(NOW, NOW + 7 * SECOND)
WORD: ContextVar[str] = ContextVar("WORD", default="none")


@pytest.fixture
async def local(clock: FakeClock) -> AsyncIterator[FakeManager]:
    async with clock.manager(1, workers=0) as manager:
        yield manager


@pytest.fixture
async def remote(clock: FakeClock) -> AsyncIterator[FakeManager]:
    async with clock.manager(1, workers=1) as manager:
        yield manager


def test_the_id_of_a_run_leads_to_its_repeat() -> None:
    assert run_id("report", NOW) == "↻report 2030-01-01T00:00:00+00:00"
    assert run_id("report", NOW + 5000) == "↻report 2030-01-01T00:00:00.000005+00:00"
    for id_ in ("report", "a b", "↻x", " ", "2030-01-01T00:00:00+00:00"):
        assert repeat_of(run_id(id_, NOW)) == id_
    for wrong in ("report", "↻report", "report 2030-01-01T00:00:00+00:00", "↻a b", ""):
        assert repeat_of(wrong) is None


def test_in_this_loop_the_function_is_called_again(local: FakeManager) -> None:
    coro = repeated.note("x")
    work, own = take_work(local._router, coro, "k", {})
    coro.close()
    assert isinstance(work, LocalWork)
    assert (work.key, work.name) == ("k", "repeated:note")
    first: Any
    second: Any
    (first, record), (second, same) = work.make("x", AT_ONCE, own)[0], work.make("x", LATER, own)[0]
    assert record == same
    assert first is not second
    assert (first.start, first.given) == (None, None)
    assert (second.start, second.given) == (LATER.due, NOW)
    one, two = first.begin(), second.begin()
    assert one is not two
    one.close()
    two.close()


def test_in_this_loop_it_has_the_context_of_its_call(local: FakeManager) -> None:
    WORD.set("mine")
    coro = repeated.note("x")
    work, own = take_work(local._router, coro, None, {"name": "notes", "retry": Retry(attempts=2)})
    coro.close()
    WORD.set("another")
    options, context, captured = work.make("x", AT_ONCE, own)[0][1]
    assert (options.name, options.retry, captured) == ("notes", Retry(attempts=2), None)
    assert context[WORD] == "mine"
    assert work.name == "notes"


class Once:
    """An awaitable that is not a coroutine."""

    def __await__(self) -> Any:
        yield


def test_what_can_be_awaited_once_cannot_be_repeated(local: FakeManager) -> None:
    inner = repeated.note("inner")
    coro = repeated.note(inner)
    with pytest.raises(TypeError, match="as an argument, which can be awaited once, and what rep"):
        take_work(local._router, coro, None, {})
    with pytest.raises(TypeError, match="what repeats is a coroutine of an async def function"):
        take_work(local._router, Once(), None, {})
    coro.close()
    inner.close()


def test_for_another_process_it_is_taken_apart_once(remote: FakeManager) -> None:
    values = [1, 2]
    work, own = take_work(remote._router, repeated.note(values), "k", {"name": "notes"})
    assert isinstance(work, RemoteWork)
    assert (work.key, work.name) == ("k", "notes")
    values.append(3)
    call, draft = work.make("x", AT_ONCE, own)
    assert draft is None
    assert work.make("x", AT_ONCE, own)[0] == call
    function, payload, record = work.make("x", LATER, own)[0]
    assert (function, payload) == call[:2]
    assert wire.read_record(record) == wire.read_record(call[2])._replace(given=NOW)
    assert take_work(remote._router, repeated.note(1), None, {})[0].name == "repeated:note"


def test_a_run_gets_the_present_globals_of_a_script(
    remote: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    space: dict[str, Any] = {"__name__": "__main__", "word": 1}
    exec("async def read(): return word", space)  # travels by value, like one of a script
    work, own = take_work(remote._router, space["read"](), None, {})
    assert isinstance(work, RemoteWork)
    work.make("x", AT_ONCE, own)
    space["word"] = (letter for letter in "ab")
    with pytest.raises(NotShippable, match="word"):
        work.make("x", AT_ONCE, own)


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_store_gets_it_under_an_id_of_its_own(clock: FakeClock, workers: int) -> None:
    async with clock.manager(1, workers=workers, store=":memory:") as manager:
        work, own = take_work(manager._router, repeated.kept("x"), "k", {"name": "notes"})
        assert isinstance(work, DurableWork)
        assert (work.key, work.name) == ("k", "notes")
        assert take_work(manager._router, repeated.kept("x"), None, {})[0].name == "repeated:kept"
        _, draft = work.make("x", AT_ONCE, own)
        assert (draft.key, draft.id) == ("k", "↻x 2030-01-01T00:00:00+00:00")
        stored = draft.stored
        assert (stored.label, stored.given, stored.confirmed) == ("notes", None, 1)
        assert work.make("x", LATER, own)[1].stored.given == NOW
        once, own = take_work(manager._router, repeated.kept_once("x"), None, {})
        assert once.make("x", AT_ONCE, own)[1].stored.confirmed == wire.FEW  # type: ignore[union-attr]
        plain, own = take_work(manager._router, coro := repeated.note("x"), None, {})
        coro.close()
        assert plain.make("x", AT_ONCE, own)[1] is None


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_durable_function_without_a_store_has_its_options(
    clock: FakeClock, workers: int
) -> None:
    async with clock.manager(1, workers=workers) as manager:
        coro = repeated.kept_late("x")
        work, own = take_work(manager._router, coro, None, {})
        coro.close()
        assert not isinstance(work, DurableWork)
        call, draft = work.make("x", AT_ONCE, own)
        assert draft is None
        if workers:
            assert wire.options_of(call[2]) is not None
        else:
            assert call[1][0].max_lateness == 3600 * SECOND


def test_equal_objects_are_shared() -> None:
    share = sharing()
    first, second = (RemoteWork(1, None, "x", key, None, Any) for key in (5, 5))  # type: ignore[arg-type]
    assert first is not second
    assert share(first) is share(second) is first
    listed = first._replace(record=[1])
    assert share(listed) is listed  # a list has no hash
    for n in range(MOST_SHARED + 1):
        share(n)
    assert share(second) is second


async def test_repeats_of_the_same_work_share_it(clock: FakeClock) -> None:
    async with clock.manager(1, workers=1, store=":memory:") as manager:
        for call in (repeated.note, repeated.kept):
            first, own = take_work(
                manager._router, call("x"), "k", {"timeout": 5} if call is repeated.note else {}
            )
            second, other = take_work(
                manager._router, call("y"), "k", {"timeout": 5} if call is repeated.note else {}
            )
            assert (first == second, hash(first) == hash(second)) == (True, True)
            assert own != other
