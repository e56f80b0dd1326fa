"""A KeyboardInterrupt inside `schedule`, at any line: the store stays whole."""

from __future__ import annotations

import sys
from datetime import timedelta
from types import FrameType
from typing import Any

import pytest
import reminders
from stores import TrickyStore

from aioscheduler.testing import FakeClock, FakeManager

DAY = timedelta(days=1)


class Interrupt:
    """Interrupts a call after a number of lines of the library.

    Attributes:
        came: Whether it did; the call may have fewer lines.
    """

    def __init__(self, lines: int) -> None:
        self.came = False
        self._left = lines

    def during(self, manager: FakeManager, when: timedelta) -> None:
        coro = reminders.note("interrupted")
        tracing = sys.gettrace()  # like a debugger's
        sys.settrace(self._trace)
        try:
            manager.schedule(coro, when, id="a")
        except KeyboardInterrupt:
            self.came = True
        finally:
            sys.settrace(tracing)
            coro.close()  # it may have come earlier

    def _trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        if "aioscheduler" not in frame.f_code.co_filename:
            return None
        if event == "line":
            self._left -= 1
            if not self._left:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self._trace


@pytest.mark.parametrize("when", [timedelta(minutes=10), 99 * DAY])
async def test_the_manager_closes_and_the_next_one_has_the_task_once_or_not_at_all(
    when: timedelta,
) -> None:
    lines, is_through = 0, False
    seen = set()
    while not is_through:
        lines += 1
        store, clock = TrickyStore(), FakeClock()
        async with clock.manager(store=store, workers=0) as manager:
            before = manager.schedule(reminders.note("before"), 50 * DAY, id="b")
            await before.stored()
            interrupt = Interrupt(lines)
            interrupt.during(manager, when)
            is_through = not interrupt.came
        async with clock.manager(store=store, workers=0) as manager:
            ids = [info.id async for info in manager.tasks()]
            seen.add(ids.count("a"))
            assert len(manager) == len(ids) == manager.stats().stored == 1 + ids.count("a")
            task = manager.schedule(reminders.note("again"), when, id="a")
            await task.stored()
            assert sorted(row.id or "" for row in store.rows()) == ["a", "b"]
    assert seen == {0, 1}
    assert lines > 100
