"""What the loop of a worker is doing, as seen from another thread: the step and its owner.

A step is one call by the loop: a callback, or a part of a coroutine from one await to the next. It
belongs to a task if the task's own code runs in it, or if it runs in a context inherited from the
task: that of an asyncio task which the task has made, or of a callback.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from contextvars import Context
from types import CodeType, FrameType
from typing import Any, NamedTuple

from aioscheduler._processes.process import WorkerProcess
from aioscheduler._scheduling.coroutines import name_of
from aioscheduler._scheduling.lifespan import STEP as LIFESPAN
from aioscheduler._shipping import failures
from aioscheduler.inside import running
from aioscheduler.refs import TaskRef

from .runner import STEPS

_CALL: CodeType = asyncio.Handle._run.__code__  # asyncio's own loop calls everything by it
_LOOP: Any = asyncio.BaseEventLoop  # Any, because its private methods are used
_BETWEEN: frozenset[CodeType] = frozenset((_LOOP._run_once.__code__, _LOOP.run_forever.__code__))
_BELOW: CodeType = WorkerProcess.run_async.__code__  # uvloop has no frames, but is called by this
_BOUNDS = STEPS | {LIFESPAN, _CALL}  # they call users' code


class Step(NamedTuple):
    """The step in which the loop's thread was seen.

    Attributes:
        frame: The innermost frame.
        called: The frame that the loop has called, or that calls for it.
        own: The frame that calls a task's code; None: the step is no part of a task.
        current: The asyncio task of which the step is a part, if any.
    """

    frame: FrameType
    called: FrameType
    own: FrameType | None
    current: asyncio.Task[Any] | None

    def is_same(self, other: Step) -> bool:
        """Return whether this is the same step as one seen before.

        Valid only if the loop has had no turn in between: a coroutine keeps its frame.
        """
        return self.called is other.called and self.own is other.own


def find_step(loop: asyncio.AbstractEventLoop, thread: int) -> Step | None:
    """Return the step that a loop is in; None if it waits, or is between two steps.

    Args:
        loop: The loop.
        thread: The thread in which it runs.
    """
    frame = innermost = sys._current_frames().get(thread)
    called = own = None
    while frame is not None and frame.f_code is not _BELOW:
        if frame.f_code in _BETWEEN:
            return None
        if own is None and frame.f_code in STEPS:
            own = frame
        called = frame
        if frame.f_code is _CALL:
            break
        frame = frame.f_back
    if frame is None or innermost is None or called is None:  # it has not begun, or has ended
        return None
    return Step(innermost, called, own, asyncio.current_task(loop))


def owner_of(step: Step) -> TaskRef | None:
    """Return the task that a step belongs to; None if it belongs to none, or that is unknown."""
    if step.own is not None:  # `engine.running` does not have a task in its first step
        own = step.own.f_locals
        shared, number = own["self"].context_of(own["engine"]), own["number"]
    else:
        context = _context_of(step)
        found = None if context is None else context.get(running)
        if found is None:
            return None
        shared, number = found[:2]
    _, manager, worker, scheduler, *_ = shared
    return TaskRef(manager, worker, scheduler, number)


def _context_of(step: Step) -> Context | None:
    """Return the context of a step, if the loop and Python's version permit."""
    if step.called.f_code is _CALL:
        context: Context = step.called.f_locals["self"]._context
        return context
    if step.current is not None and sys.version_info >= (3, 12):
        return step.current.get_context()
    return None


def describe(step: Step | None, own: str) -> str:
    """Return the name of what runs in a step.

    Args:
        step: The step; None if none was found.
        own: The worker's own part that its asyncio task runs (`Worker.name_own`); "" for none.
    """
    ref = None if step is None else owner_of(step)
    if step is None:
        return "a callback of the loop"
    if own and step.own is None:
        return own
    coro: Any = None if step.current is None else step.current.get_coro()
    if coro is not None and getattr(coro, "cr_code", None) not in STEPS:
        name = failures.describe(name_of, coro)
        # Its owner may be unknown: it may be a lifespan's or a library's.
        return (
            f"the asyncio task of {name}()"
            if ref is None
            else f"{name}(), which task {ref} has begun,"
        )
    if step.own is None:
        return "a callback of the loop" if ref is None else f"a callback of task {ref}"
    called, options = step.own.f_locals.get("called"), step.own.f_locals.get("options")
    if called is None:  # its arguments are being read
        return f"task {ref}"
    return f"task {(options and options.name) or failures.describe(name_of, called)} {ref}"


def stack_of(frame: FrameType | None) -> str:
    """Return the stack from the loop's step on; the frames before it are always the same."""
    inner: list[tuple[FrameType, int]] = []
    for found in traceback.walk_stack(frame):
        if found[0].f_code in _BOUNDS and inner:
            break
        inner.append(found)
    return "".join(traceback.StackSummary.extract(reversed(inner)).format())
