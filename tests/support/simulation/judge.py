"""What must be true when all tasks have ended."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from aioscheduler import QueuedScheduler, RemoteError, State, Task, TooLate, WorkerLost
from aioscheduler._scheduling.clock import SECOND
from aioscheduler.errors import EXIT_OF_BLOCKED

from .acts import Again
from .lives import BLOCKED
from .model import Story
from .spite import ODD
from .virtual import Spite

if TYPE_CHECKING:
    from .world import World


def judge(world: World, closed: bool) -> None:
    """Judge a world whose tasks have all ended."""
    model, manager = world.model, world.manager
    for ident, story in enumerate(model.stories):
        for what in _faults_of(world, story, world.handles[ident], ident, closed):
            model.fault(f"task {ident} {what}: {story}")
    if len(manager) or manager._router.placement.all_loads:
        model.fault(f"{manager!r} counts {len(manager)} after all has ended")
    if any(manager._router.placement.waiting + manager._router.placement.loads):
        model.fault("places are not empty")
    if world.cls is QueuedScheduler:
        begun: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for ident in model.order:
            begun[model.stories[ident].place, model.stories[ident].scheduler].append(ident)
        for order in begun.values():
            if order != sorted(order):
                model.fault(f"a queue ran out of order: {order}")
    stats = manager.stats()
    ends = Counter(end for story in model.stories for end in story.ends)
    others = stats.failed + stats.cancelled + stats.lost - model.unheard
    others -= ends[State.FAILED] + ends[State.CANCELLED] + ends[State.LOST]
    finished = stats.finished - ends[State.FINISHED]
    if stats.retried > model.retried:
        model.fault(f"stats say {stats}, and {model.retried} were retried")
    too_late = sum(isinstance(story.error, TooLate) for story in model.stories)
    if stats.too_late != too_late:
        model.fault(f"stats say {stats}, and {too_late} were too late")
    recycled = world.recycled
    if not recycled.gone <= stats.recycled <= recycled.count - recycled.died:
        told = f"{recycled.count} were told to go, {recycled.gone} went, {recycled.died} died"
        model.fault(f"stats say {stats}, {told}")
    followers = finished >= 0 <= others and finished + others <= model.followers
    if stats.pending or stats.running or not followers:
        model.fault(f"stats say {stats} and not {ends}, {model.unheard} unheard")


def _faults_of(
    world: World, story: Story, handle: Task[Any], ident: int, closed: bool
) -> list[str]:
    """Return what is wrong with the end of a task, in words."""
    promises: list[tuple[object, str]] = [(len(story.ends) == 1, "has not exactly one end")]
    end = story.ends[0] if story.ends else None
    odd = story.deed.partition(": ")[2]
    attempts = story.attempts
    failures = sum(attempt.failed for attempt in attempts)
    allowed = 1 if story.retry is None else story.retry.retry.attempts
    promises.append((failures <= allowed or story.outlived, "was tried too often"))
    if end is State.FINISHED:
        promises.append((attempts, "finished and never started"))
        if story.deed.startswith("read a result"):
            same = _read_again(handle) == _read_again(handle)
            promises.append((same, "changed its outcome"))
        else:
            promises += [
                (
                    story.deed.startswith(("again", "swallow", "dies", "blocks")) or not story.deed,
                    "did not raise",
                ),
                (handle.result() == ident, "has another's result"),
                (not attempts or not attempts[-1].failed, "finished by an attempt that failed"),
                (
                    story.timeout is None
                    or story.nap <= story.timeout
                    or story.deed.startswith("swallow")
                    or attempts[-1].life.apart,
                    "ran longer than it may",
                ),
            ]
    if end is State.LOST:
        promises += [
            (isinstance(story.error, WorkerLost), "is lost without a word"),
            (getattr(story.error, "started", False), "was pending and is lost"),
            (closed or not world.rerun or story.named, "is lost in spite of rerun"),
            (closed or world.spiteful or _is_told_who_it_was(story), "is told of another's block"),
            # Lateness is judged in the worker, and its report may be lost with it.
            (
                attempts
                or closed
                or world.spiteful
                or world.lossy
                or story.max_lateness is not None,
                "had not begun and is lost",
            ),
            (not story.asked or closed, "was asked to cancel and is lost"),
        ]
    if attempts and attempts[-1].blocked and not (closed or world.spiteful):
        asked = story.asked and end is State.CANCELLED
        promises.append((asked or end is State.LOST, "has blocked its worker and was not lost"))
    if end is State.CANCELLED:
        # A task that begins in spite of a withdrawal goes on.
        withdrawn = story.withdrawn is not None and (
            len(attempts) <= story.withdrawn or story.outlived
        )
        promises += [
            (withdrawn or story.asked or closed or odd == "cancelled", "was cancelled by nobody"),
            (
                odd == "cancelled"
                or withdrawn
                or not attempts
                or attempts[-1].failed
                or story.cancels
                or story.outlived,
                "started and ended cancelled without hearing of it",
            ),
        ]
    if end is State.FAILED:
        # Spite in a worker that reads a frame fails the frame's tasks.
        spite = isinstance(story.error, Spite)
        if isinstance(story.error, TooLate):
            limit = story.max_lateness
            right = limit is not None and story.error.lateness * SECOND > limit - 1000
            return [what for good, what in [*promises, (right, "was not too late")] if not good]
        if type(story.error) is TimeoutError:
            right = story.timeout is not None and story.timeout <= story.nap
            return [what for good, what in [*promises, (right, "had its time")] if not good]
        promises.append((story.deed or spite, f"failed: {story.error!r}"))
        if story.deed.startswith("raise") and not spite:
            want = RemoteError if odd.startswith("unpicklable") else type(ODD[odd]())
            promises.append((type(story.error) is want, f"arrived as {story.error!r}"))
        if story.deed.startswith("again") and not spite:
            promises += [
                (type(story.error) is Again, f"arrived as {story.error!r}"),
                (
                    any(attempt.failed and attempt.retry_at is None for attempt in attempts),
                    "was not tried as often as it may be",
                ),
            ]
    return [what for good, what in promises if not good]


def _is_told_who_it_was(story: Story) -> bool:
    """Return whether a task lost with its blocked worker learns if it was the one to block it."""
    error = story.error
    if not isinstance(error, WorkerLost) or error.exitcode != EXIT_OF_BLOCKED:
        return True
    if story.attempts and story.attempts[-1].blocked:
        return error.cause == BLOCKED
    return story.named or error.cause == f"another task is to blame: {BLOCKED}"


def _read_again(handle: Task[Any]) -> str:
    """Return the error raised for a result that cannot be read."""
    try:
        return f"returned {handle.result()!r:.80}"
    except BaseException as error:  # noqa: BLE001  it may be anything
        return f"raised {error!r}"
