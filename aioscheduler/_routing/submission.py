"""Implements `map`: many calls of one function, sent place by place, as many as a link takes.

map(work, items, whens) ─► submit ─┬─► a place (placement, with its limits)
                                   └─► some payloads ─┬─► link.schedule_many
                                                      └─► durable: and into the file,
                                                          or only there, if due far off
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from types import CoroutineType
from typing import Any, NamedTuple

from .. import registry
from .._scheduling.coroutines import close_unstarted, name_of
from ..batch import Batch
from ..options import TaskOptions, read_options
from ..outcomes import Outcomes
from ..registry import read_durable_options
from .bulk import Whens, name_item, take_some
from .drafts import Draft
from .keeper import Keeper
from .layout import check_flag
from .router import Router


def submit(
    router: Router,
    func: Callable[..., Any],
    arguments: Iterable[tuple[Any, ...]],
    when: Whens,
    key: str | bytes | int | None,
    options: TaskOptions,
    return_exceptions: bool = False,
    call: str = "map",
) -> Batch[Any]:
    """Schedule calls of one function; see `Manager.map`.

    Args:
        router: Places them.
        func: As for `Manager.map`.
        arguments: The arguments of each call.
        when: As for `Manager.map`.
        key: As for `Manager.map`.
        options: As for `Manager.map`.
        return_exceptions: As for `Manager.map`.
        call: The name of the call, `map` or `starmap`.

    Raises:
        Exception: As `Manager.map` does. Calls sent before are cancelled.
    """
    if not callable(func):
        close_unstarted(func)
        hint = ""
        if isinstance(func, CoroutineType):
            hint = f"; leave out the call: {call}({func.__name__}, items)"
        wrong = type(func).__name__
        raise TypeError(f"{call}() takes a function and its items, not {wrong}{hint}")
    check_flag("return_exceptions", return_exceptions)
    router.check_open()
    router.loop_thread.check(f"manager.{call}, func, items")
    placement, front = router.placement, router.links[0]
    # One more than there is room for: it is refused below, as is an endless iterable.
    room = placement.room_everywhere()
    each = list(arguments if room is None else islice(arguments, room + 1))
    count = len(each)
    dues = router.dues(when, count, cut=room is not None and count > room)
    outcomes = Outcomes(count)
    calls = _Calls(each, dues, outcomes)
    name, send = _prepare(router, func, key, options, calls)
    outcomes.name = name or name_of(func)
    batch: Batch[Any] = Batch(outcomes, return_exceptions)
    # Small batches, too, should use every scheduler.
    share = -(-count // len(placement.loads)) if key is None else count
    sent = 0
    try:
        while sent < count:
            try:
                place = placement.choose(key)
            except (ValueError, TypeError) as refusal:
                raise name_item(sent, refusal) from refusal
            sent += send(place, sent, min(share, front.room(), placement.room(place)))
    except BaseException:
        batch.cancel()
        raise
    return batch


class _Calls(NamedTuple):
    """The calls of one batch.

    Attributes:
        arguments: The arguments of each.
        dues: The due time of each, or one for all.
        outcomes: Notified of their ends.
    """

    arguments: list[tuple[Any, ...]]
    dues: int | list[int]
    outcomes: Outcomes

    def dues_of(self, start: int, count: int) -> int | list[int]:
        """Return the due times of `count` calls, or one for all."""
        return self.dues if isinstance(self.dues, int) else self.dues[start : start + count]


_Send = Callable[[int, int, int], int]
"""Sends calls to a place, given the first index and the most to send; returns how many it sent."""


def _prepare(
    router: Router,
    func: Callable[..., Any],
    key: str | bytes | int | None,
    options: TaskOptions,
    calls: _Calls,
) -> tuple[str | None, _Send]:
    """Return the name given to the calls, if any, and the function that sends them."""
    durable = registry.of_function(func)
    if durable is None:
        read = read_options(options, router.order) if options else None
    else:
        read = read_durable_options(durable, options, router.order)
    name = read and read.name
    keeper = router.keeper
    if durable is None or keeper is None:
        function = router.links[0].shipper.take_function(func)
        return name, _Plain(router, calls, function, router.take_record(read)).send
    captured = None if router.propagation is None else router.propagation.capture()
    keeper.commits.check_room()
    calls.outcomes.durable = True
    draft = keeper.drafts.draft_many(durable, name, captured, key)
    return name, _Durable(router, keeper, calls, draft).send


class _Plain(NamedTuple):
    """Sends calls that are not durable."""

    router: Router
    calls: _Calls
    function: Any
    record: Any

    def send(self, place: int, start: int, most: int) -> int:
        router, calls, function, record = self
        taken = take_some(router.links[0].shipper, calls.arguments, start, most)
        link, scheduler = router.link_of(place, len(taken)), router.placement.scheduler_of[place]
        dues = calls.dues_of(start, len(taken))
        link.schedule_many(calls.outcomes, start, scheduler, dues, function, taken, record)
        return len(taken)


class _Durable(NamedTuple):
    """Sends calls into the file, and those due soon to their links."""

    router: Router
    keeper: Keeper
    calls: _Calls
    draft: Draft

    def send(self, place: int, start: int, most: int) -> int:
        router, keeper, calls, draft = self
        payloads = keeper.drafts.take_some(draft, calls.arguments, start, most)
        far, count = _first_alike(keeper, calls.dues_of(start, len(payloads)), len(payloads))
        payloads, dues = payloads[:count], calls.dues_of(start, count)
        if far:
            keeper.shelf.schedule_many(calls.outcomes, start, dues, payloads, draft)
            return count
        function, taken, record = keeper.calls.make_many(draft.stored, payloads)
        link, scheduler = router.link_of(place, count), router.placement.scheduler_of[place]
        first = link.schedule_many(calls.outcomes, start, scheduler, dues, function, taken, record)
        worker = router.placement.worker_of[place]
        keeper.intake.enter_many(worker, first, dues, payloads, draft)
        return count


def _first_alike(keeper: Keeper, dues: int | list[int], count: int) -> tuple[bool, int]:
    """Return whether the first tasks will be only in the file, and how many are like the first."""
    if isinstance(dues, int):
        return keeper.is_far(dues), count
    far = keeper.is_far(dues[0])
    return far, next((n for n, due in enumerate(dues) if keeper.is_far(due) is not far), count)
