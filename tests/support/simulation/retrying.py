"""The `retry` option of tasks, and its effect, computed independently."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

from aioscheduler import Retry

from .acts import Again

_NEVER = (asyncio.CancelledError, SystemExit, KeyboardInterrupt)
_ANSWERS = (True, False, 0, 0.02, 3, timedelta(seconds=0.5), "no answer", "raises", -1)


class Drawn(NamedTuple):
    """The option of a task.

    Attributes:
        retry: The option.
        answer: Its answer if it is a function, which is not called here.
    """

    retry: Retry
    answer: object = True


def yes(error: BaseException) -> bool:
    """Be a predicate that is found by name."""
    return True


def saying(answer: object) -> Callable[[BaseException], Any]:
    """Make a predicate that goes by value, with a closure."""

    def answers(error: BaseException) -> Any:
        if answer == "raises":
            raise LookupError("no idea")
        return answer

    return answers


def draw_retry(generator: random.Random, share: float) -> Drawn | None:
    """Draw the option for a share of the tasks, without jitter: each seed must replay."""
    if generator.random() >= share:
        return None
    on: Any = generator.choice((Again, Again, (ValueError, Again), Exception, OSError, yes))
    answer: object = True
    if generator.random() < 0.4:
        answer = generator.choice(_ANSWERS)
        on = saying(answer)
    retry = Retry(
        on,
        attempts=generator.randint(1, 4),
        wait_initial=generator.choice((0, 0.01, 2)),
        wait_max=generator.choice((0.5, 300)),
        wait_exp_base=generator.choice((1, 2, 10)),
        wait_jitter=0,
    )
    return Drawn(retry, answer)


def wait_after(drawn: Drawn | None, error: BaseException, failed: int) -> float | None:
    """Return the seconds that a task waits after its latest failure; None: it has ended."""
    if drawn is None or isinstance(error, _NEVER) or failed >= drawn.retry.attempts:
        return None
    retry, answer = drawn
    if isinstance(retry.on, tuple | type) and not isinstance(error, retry.on):
        return None
    if answer is True:
        waits: Any = retry  # its numbers are seconds
        wait = waits.wait_initial * waits.wait_exp_base ** (failed - 1)
        return float(min(waits.wait_max, wait))
    if isinstance(answer, timedelta):
        return answer.total_seconds()
    told = isinstance(answer, int | float) and answer is not False and answer >= 0
    return float(answer) if told else None  # type: ignore[arg-type]
