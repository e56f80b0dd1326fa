"""The options of a task: what `schedule` and `map` accept besides what, when and where.

    schedule(work(1), when, timeout=5) ─ read_options ─► Options ─► one line of the definitions,
                                                                    whose number tasks have
               lateness_error, run_with ◄─ Options ◄──────────┘ in their record

To add one: append a key to `TaskOptions` and a field to `Options`, and read it in `read_options`.
Its effect belongs in `run_with` if it concerns one run of a task, in a worker and in this loop
alike; if it concerns what follows a run (as `retry` does), in the worker's runner and the local
runner. Engines, outbox and ledger pass the record on without looking inside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, NamedTuple, TypedDict

from ._scheduling.clock import LATEST, SECOND, read_seconds
from ._scheduling.order import Order
from .errors import TooLate
from .retry import Retry


class TaskOptions(TypedDict, total=False):
    """The keyword options of `schedule`; None is the same as leaving one out.

    Attributes:
        name: A label for messages and `Task.name`; by default the function's `module:qualname`.
        timeout: How long the task may run, in seconds (a number over 0) or as a timedelta. It is
            then cancelled and fails with `TimeoutError`; a task that swallows the cancellation
            and returns has finished, as under `asyncio.timeout`. No effect on a plain function.
        max_lateness: How long after its due time the task may still start, in seconds (0 or more)
            or as a timedelta. After that it does not start, and fails with `TooLate`. Not for
            queues.
        retry: Which failures are retried, how often, and after which waits. While a task waits
            it is pending again; in a queue it stays at the head, and the queue waits for it.
    """

    name: str | None
    timeout: float | timedelta | None
    max_lateness: float | timedelta | None
    retry: Retry | None


class Options(NamedTuple):
    """Options as stored and sent; equal ones travel once.

    Attributes:
        name: The label.
        timeout: Seconds.
        max_lateness: Nanoseconds.
        retry: Which failures are retried.
    """

    name: str | None = None
    timeout: float | None = None
    max_lateness: int | None = None
    retry: Retry | None = None


def read_options(given: TaskOptions, order: Order) -> Options | None:
    """Return the options that were given, None if there are none.

    Raises:
        TypeError: An option is unknown, has the wrong type, or is not for a queue.
        ValueError: A value is out of range.
    """
    unknown = given.keys() - TaskOptions.__annotations__.keys()
    if unknown:
        known = ", ".join(TaskOptions.__annotations__)
        raise TypeError(
            f"there is no option {min(unknown)!r} here; the options are {known}; a manager's "
            "schedule() takes key, id and replace, too, and its map() key and return_exceptions"
        )
    name, timeout = given.get("name"), given.get("timeout")
    max_lateness = given.get("max_lateness")
    if max_lateness is not None and order is not Order.TIMED:
        raise TypeError("a queue has no due times to be late after: leave out max_lateness")
    options = Options(
        None if name is None else read_text("name", name, "for the function's"),
        None if timeout is None else read_seconds("timeout", timeout, above_zero=True),
        None
        if max_lateness is None
        else int(min(read_seconds("max_lateness", max_lateness) * SECOND, LATEST)),
        None if (retry := given.get("retry")) is None else _read_retry(retry),
    )
    return None if options == _NONE else options


_NONE = Options()

RUN_MARK = "↻"
"""The prefix of the ids of tasks that are runs of a repeat, and of no others."""


def read_text(option: str, text: str, without: str) -> str:
    """Return a text that was given, as a plain str.

    Args:
        option: The option's name.
        text: What was given.
        without: What leaving it out would mean, for the error message.

    Raises:
        TypeError: It is not a str.
        ValueError: It is empty, or cannot be encoded as UTF-8.
    """
    if not isinstance(text, str):
        raise TypeError(f"{option} is a str, not {type(text).__name__}")
    text = str.__str__(text)  # a subclass may raise, or not be picklable
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{option} cannot be written down: {error}") from None
    if not text:
        raise ValueError(f"{option} must not be empty; leave it out {without}")
    return text


def read_id(id_: str | None, replace: bool) -> str:
    """Return the id of a call that gives `id` or `replace`.

    Raises:
        TypeError: One of them has the wrong type.
        ValueError: The id is empty or that of a repeat's run, or `replace` comes without one.
    """
    if not isinstance(replace, bool):
        raise TypeError(f"replace is True or False, not {type(replace).__name__}")
    if id_ is None:
        raise ValueError("replace=True needs the id of the task to replace")
    id_ = read_text("id", id_, "for none")
    if id_.startswith(RUN_MARK):
        raise ValueError(f"ids that begin with {RUN_MARK!r} belong to runs of repeats: {id_!r}")
    return id_


def _read_retry(retry: Retry) -> Retry:
    if not isinstance(retry, Retry):
        what = getattr(retry, "__name__", None) if callable(retry) else None
        write = (
            "Retry(attempts=3)" if retry is Retry or not isinstance(what, str) else f"Retry({what})"
        )
        raise TypeError(f"retry is a Retry: write {write}, not {retry!r:.100}")
    return retry


def lateness_error(options: Options, name: str, due: int, attempt: int, now: int) -> TooLate | None:
    """Return the failure of a task that would start too late by its options, else None.

    Called right before the task's own first step.

    Args:
        options: The task's options.
        name: The task's name, for messages.
        due: When it was due; nanoseconds since the epoch.
        attempt: How many times it has been started, this one included.
        now: The present; nanoseconds since the epoch.
    """
    if options.max_lateness is None or now - due <= options.max_lateness:
        return None
    return TooLate(name, (now - due) / SECOND, options.max_lateness / SECOND, attempt)


async def run_with(options: Options, name: str, call: Callable[[], Any]) -> Any:
    """Run a task that has a timeout; others need no wrapper.

    Args:
        options: The task's options.
        name: The task's name, for messages.
        call: Begins it: returns its result, or an awaitable of it.

    Raises:
        TimeoutError: It ran too long.
        BaseException: Whatever the task raises.
    """
    result = call()
    if not isinstance(result, Awaitable):
        return result
    try:
        async with asyncio.timeout(options.timeout) as limit:
            return await result
    except TimeoutError as error:
        if limit.expired() and isinstance(error.__cause__, asyncio.CancelledError):
            why = f"task {name} ran longer than its timeout of {options.timeout:g} s"
            raise TimeoutError(why) from error.__cause__
        raise  # the task's own
