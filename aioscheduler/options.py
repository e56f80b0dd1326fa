"""The options of a task: what `schedule` and `map` are told besides what, when and where.

    schedule(work(1), when, timeout=5) ─ read_options ─► Options ─► one line of the definitions,
                                                                    whose number tasks have
               lateness_error, run_with ◄─ Options ◄──────────┘ in their record

To add one: a key of `TaskOptions` and a field of `Options`, behind the others, read in
`read_options`; and what it does, in `run_with` if it holds for one run of a task, in a worker and
in this loop alike; what follows when a run has ended (`retry`) is the worker's runner's, and the
local runner's. Engines, outbox and ledger pass the record on, and do not look inside.
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
    """What `schedule` takes by keyword; None is the same as leaving it out.

    Attributes:
        name: A label for messages and `Task.name`; by default the function's `module:qualname`.
        timeout: Seconds (a number over 0, or a timedelta) that the task may run. Then it is
            cancelled, and fails with `TimeoutError`; one that swallows its cancellation and
            returns has returned, as under `asyncio.timeout`. No effect on a plain function.
        max_lateness: Seconds (a number, 0 or more, or a timedelta) after its due time within
            which the task may start. Later it does not start, and fails with `TooLate`. Not for
            queues.
        retry: Which failures have the task start once more, how often, and after which waits.
            While it waits it is pending again; in a queue it keeps its place, and the queue waits
            for it.
    """

    name: str | None
    timeout: float | timedelta | None
    max_lateness: float | timedelta | None
    retry: Retry | None


class Options(NamedTuple):
    """Options as they are kept and sent; equal ones are one.

    Attributes:
        name: The label.
        timeout: Seconds.
        max_lateness: Nanoseconds.
        retry: Which failures have the task start once more.
    """

    name: str | None = None
    timeout: float | None = None
    max_lateness: int | None = None
    retry: Retry | None = None


def read_options(given: TaskOptions, order: Order) -> Options | None:
    """Return the options that were given, None if there are none.

    Raises:
        TypeError: There is no such option, it is of a wrong type, or it is not for a queue.
        ValueError: It cannot mean anything.
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
"""The ids of tasks that are runs of a repeat begin so, and no others."""


def read_text(option: str, text: str, without: str) -> str:
    """Return a text that was given, as a plain str.

    Args:
        option: What it is for.
        text: What was given.
        without: What holds where it is left out, for the refusal.

    Raises:
        TypeError: It is no str.
        ValueError: It is empty, or no UTF-8.
    """
    if not isinstance(text, str):
        raise TypeError(f"{option} is a str, not {type(text).__name__}")
    text = str.__str__(text)  # what a class made of it may raise, or not be picklable
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{option} cannot be written down: {error}") from None
    if not text:
        raise ValueError(f"{option} must not be empty; leave it out {without}")
    return text


def read_id(id_: str | None, replace: bool) -> str:
    """Return the id that was given, where one or `replace` was.

    Raises:
        TypeError: One of them is of a wrong type.
        ValueError: The id is empty, or there is none to be replaced.
    """
    if not isinstance(replace, bool):
        raise TypeError(f"replace is True or False, not {type(replace).__name__}")
    if id_ is None:
        raise ValueError("replace=True needs the id of the task that is to be replaced")
    id_ = read_text("id", id_, "for none")
    if id_.startswith(RUN_MARK):
        raise ValueError(f"ids that begin with {RUN_MARK!r} are those of runs of repeats: {id_!r}")
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
    """Return with what a task ends that starts too late by its options, else None.

    It is asked right before the task's own first step.

    Args:
        options: The task's.
        name: Of the task, for messages.
        due: When it was to start; nanoseconds since the epoch.
        attempt: How many times it has been started, with this one.
        now: The present.
    """
    if options.max_lateness is None or now - due <= options.max_lateness:
        return None
    return TooLate(name, (now - due) / SECOND, options.max_lateness / SECOND, attempt)


async def run_with(options: Options, name: str, call: Callable[[], Any]) -> Any:
    """Run a task that has a timeout; others need nothing around them.

    Args:
        options: The task's.
        name: Of the task, for messages.
        call: Begins it: gives its result, or what is to be awaited for that.

    Raises:
        TimeoutError: It ran too long.
        BaseException: Whatever it raises.
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
