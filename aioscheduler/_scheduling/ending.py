"""Ending running tasks: first they may finish, then they are cancelled, at last given up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from .engine import Engine
from .running import Running

CLEANUP_TIME = 0.4  # seconds that a cancelled task has before it is cancelled once more
LAST_WORDS = 0.05  # seconds after that; together less than `draining.KILL_AFTER`


async def end_running(
    engines: Sequence[Engine[Any]],
    timeout: float | None,
    caller: tuple[int, int] | None = None,
    cancel: Callable[[Running[Any], int], None] = Running.stop,
) -> list[tuple[int, int]]:
    """Let running tasks finish, then cancel them, and give up those that swallow that twice.

    The caller's own task is left alone: it waits for this.

    Args:
        engines: Stopped engines.
        timeout: Seconds that tasks have before they are cancelled; None for no limit.
        caller: Scheduler and number of the task that waits for this, if known.
        cancel: The method of `Running` that cancels them.

    Returns:
        Scheduler and number of each task that was given up.
    """
    own = asyncio.current_task()

    def left() -> dict[asyncio.Task[None], tuple[Engine[Any], int]]:
        return {
            task: (engine, number)
            for engine in engines
            for number, (task, _) in engine.running.items()
            if task is not own and (engine.index, number) != caller
        }

    if timeout != 0 and (running := left()):
        await asyncio.wait(running, timeout=timeout)
    for patience in (CLEANUP_TIME, LAST_WORDS):
        for engine, number in left().values():
            cancel(engine.running, number)
        if running := left():
            await asyncio.wait(running, timeout=patience)
            await asyncio.sleep(0)  # tasks cancelled before their first step report here
    return [(engine.index, number) for engine, number in left().values()]
