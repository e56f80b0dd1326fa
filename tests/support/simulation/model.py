"""What all observers know of each task, and what can be judged at once."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aioscheduler import State, Task, TimedScheduler
from aioscheduler._scheduling.clock import SECOND
from aioscheduler._scheduling.states import ENDED
from aioscheduler._transport.wire import BLOB_LIMIT, CANCELLED, Kind
from aioscheduler.inspection import Wanted

from .lives import Life
from .propagating import look
from .retrying import Drawn, wait_after

if TYPE_CHECKING:
    from .world import World

SLICE_PATIENCE = 30.0  # virtual seconds from being due to the start, at most


@dataclass(eq=False)
class Attempt:
    """One start of a task."""

    life: Life
    began: float = 0.0  # by the clock of the loop
    retry_at: int | None = None  # by the clock; None: there is no retry
    waited_at: int = 0  # the same, by a clock that is never set
    failed: bool = False
    heard: bool = False  # the host has read that it is retried
    counted: bool = False  # and that it has failed
    over: bool = False
    blocked: bool = False  # it has blocked its life, and so ended it


@dataclass
class Story:
    """What the model knows of a task.

    Attributes:
        link: Its link.
        place: The number of its worker.
        number: Its number at that worker.
        scheduler: Its scheduler.
        due: When it starts, in nanoseconds; 0 in a queue.
        size: Bytes of its arguments.
        deed: "" for a task that returns; else its deed, and the exception.
        asked: Whether it was asked to cancel.
        confirmed: Whether it waits for CONFIRM, by its record.
        retry: Which of its failures are followed by another attempt.
        withdrawn: How often it had started when it was withdrawn; None: it was not.
        leaves: Whether the withdrawal may still come before its start.
        last_life: The last life that may begin it.
        moves: New due times of which it is not known yet whether they came before the start.
        moved: Whether it was ever rescheduled.
        attempts: Its starts.
        cancels: CancelledErrors seen inside.
        ends: The ends that its handle has reported.
        nap: Seconds that it sleeps.
        timeout: Seconds that it may run.
        max_lateness: Nanoseconds by which it may start late.
        named: Whether a life has named it, rightly or not, as the task that blocked it.
        id_: The id that it has, None once that is free or another's.
        error: The error it ended with.
        context: The values of the context that it must see.
        follows: Whether it schedules another one.
    """

    link: Any = field(repr=False)
    place: int
    number: int
    scheduler: int
    due: int
    size: int = 0
    deed: str = ""
    asked: bool = False
    confirmed: int = 0
    retry: Drawn | None = None
    withdrawn: int | None = None
    leaves: bool = False
    last_life: int = sys.maxsize
    moves: list[int] = field(default_factory=list)
    moved: bool = False
    attempts: list[Attempt] = field(default_factory=list)
    cancels: int = 0
    ends: list[State] = field(default_factory=list)
    nap: float = 0.0
    timeout: float | None = None
    max_lateness: int | None = None
    named: bool = False
    id_: str | None = None
    error: BaseException | None = None
    context: Any = None
    follows: bool = False

    @property
    def outlived(self) -> bool:
        """Return whether a life in which it has begun has ended."""
        return any(attempt.life.dead for attempt in self.attempts)

    def settle_move(self) -> None:
        """Let the last new due time hold, as it had not begun."""
        if self.moves:
            self.due = self.moves[-1]
            self.moves.clear()


class Model:
    """The stories of a seed's tasks.

    Attributes:
        faults: What went wrong, in words.
        stories: By the number that the world gives a task.
        open: The tasks whose handles have reported no end.
        order: First starts, except those in lives that were given up.
        unheard: How many tasks have no handle.
        followers: How many tasks have scheduled another, as far as their host knows.
        retried: How many failed attempts the host knows will be followed by another.
        closing: Whether the manager is closing.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.faults: list[str] = []
        self.stories: list[Story] = []
        self.open: dict[int, Task[Any]] = {}
        self.order: list[int] = []
        self.unheard = self.retried = self.followers = 0
        self.closing = False
        self._known: dict[tuple[int, int], int] = {}  # by worker and number

    def fault(self, what: str) -> None:
        self.world.say("FAULT", what)
        self.faults.append(what)

    def _check(self, ident: int, good: object, what: str) -> None:
        if not good:
            self.fault(f"task {ident} {what}: {self.stories[ident]}")

    # ---- from the world

    def watch(self, task: Task[Any], place: int, due: int, **known: Any) -> None:
        """Note a task that was scheduled, and listen to its handle."""
        ident = len(self.stories)
        story = Story(task._home, place, task._number, task._scheduler, due, **known)
        self.stories.append(story)
        self._known[place, task._number] = ident
        self.open[ident] = task

        def ended(task: Task[Any]) -> None:
            self._ended(ident, task)

        task.add_done_callback(ended)

    def _ended(self, ident: int, task: Task[Any]) -> None:
        story = self.stories[ident]
        self.open.pop(ident, None)
        story.ends.append(task.state)
        self._check(ident, not story.id_ or task.id == story.id_, f"ends with the id {task.id}")
        story.id_ = None
        try:
            story.error = task.exception()
        except BaseException as error:  # noqa: BLE001  it is judged later
            story.error = error
        self.world.say("end", ident, task.state, type(story.error).__name__)
        self.world.suffer_handler()

    def has_id(self, id_: str) -> int | None:
        """Return the task that has an id: the one that got it last, unless it has ended since."""
        found = [
            n for n, task in self.open.items() if self.stories[n].id_ == id_ and not task.done()
        ]
        if len(found) > 1:
            self.fault(f"{found} all have the id {id_}")
        known = found[-1] if found else None
        router = self.world.manager._router
        address = router.known(id_)
        told = None if address is None else router.handle(address)
        if told is not (None if known is None else self.open[known]):
            self.fault(f"task {known} has the id {id_}, and the manager says {told}")
        return known

    def was_taken(self, ident: int, task: Task[Any]) -> None:
        """Judge the handle returned for a task whose id another has."""
        self._check(ident, task is self.open[ident], f"has the id, and {task} was returned")

    def was_replaced(self, ident: int, state: State) -> None:
        """Note that another task has taken the id of one in this state."""
        story = self.stories[ident]
        self._check(ident, self.open[ident].id is None, "was replaced and has its id")
        story.id_ = None
        if state is State.PENDING:
            self.asked_to_withdraw(ident, True, state)

    def asked_to_cancel(self, ident: int, asked: bool, state: State) -> None:
        story = self.stories[ident]
        done = state in ENDED
        if state is State.PENDING:
            story.id_ = None
        self._check(ident, asked is not done, f"was done: {done}, and its cancel said {asked}")
        if asked and not story.asked:
            story.asked = True
            story.last_life = self.world.born  # no later one may begin it

    def asked_to_withdraw(self, ident: int, asked: bool, state: State) -> None:
        story = self.stories[ident]
        if not story.asked:
            good = asked is (state is State.PENDING)
            self._check(ident, good, f"was {state}, and its withdraw said {asked}")
        if asked:
            story.id_ = None
            story.withdrawn, story.leaves = len(story.attempts), True
            story.last_life = self.world.born  # no later one may begin it

    def asked_to_move(self, ident: int, due: int, asked: bool, state: State, unsent: bool) -> None:
        story = self.stories[ident]
        if not story.asked:
            good = asked is (state is State.PENDING)
            self._check(ident, good, f"was {state}, and its reschedule said {asked}")
        if asked:
            story.moved = True
            story.moves.append(due)
            if story.attempts and (retry_at := story.attempts[-1].retry_at) is not None:
                story.attempts[-1].retry_at = min(retry_at, due)
            if unsent or not self._may_know(story):
                story.settle_move()

    def _may_know(self, story: Story) -> bool:
        """Return whether a process knows of a task, or may learn of it before the request."""
        return any(life.place == story.place and not life.gone for life in self.world.lives)

    # ---- from the pipes

    def host_is_told(self, life: Life, frame: list[Any]) -> None:
        """Note a frame that the host reads."""
        self.world.recycled.host_hears(life, frame)
        kind, *fields = frame
        if kind in (Kind.ANNOUNCED, Kind.PROPOSED):
            life.heard.update(fields[1])
            for story in self._stories_of(life, fields[1]):
                if story.leaves and not story.asked:  # it came too late
                    story.leaves, story.last_life = False, sys.maxsize
                story.moves.clear()
        elif kind == Kind.UNBEGUN:
            life.heard.difference_update(fields[1])
        elif kind == Kind.RETRY:
            life.heard.difference_update(fields[1])
            for story in self._stories_of(life, fields[1]):
                tried = [a for a in story.attempts if a.life is life and a.failed and not a.heard]
                # If spite has refused the frame of one, the next counts for both.
                for attempt in tried if self.world.spiteful else tried[:1]:
                    attempt.heard = True
                uncounted = [a for a in story.attempts if a.life is life and a.failed]
                uncounted = [a for a in uncounted if not a.counted]
                for attempt in uncounted[:1]:
                    attempt.counted = True
                    self.retried += 1
        elif kind == Kind.ENDED and fields[2] == CANCELLED:
            for story in self._stories_of(life, fields[1]):
                story.settle_move()

    def _stories_of(self, life: Life, numbers: list[int]) -> list[Story]:
        known, place = self._known, life.place
        return [self.stories[known[place, n]] for n in numbers if (place, n) in known]

    def life_ended(self, life: Life) -> None:
        """Note that the host has taken a life's end: unannounced tasks have not begun."""
        life.gone = True
        self.world.recycled.life_ended(life)
        for ident in self.open:
            story = self.stories[ident]
            if story.place == life.place and story.number not in life.heard:
                story.settle_move()

    # ---- from the workers

    def is_announced(self, number: int, place: tuple[int, int], life: Life) -> None:
        """Judge that a worker may take a task from a queue, by the limit of running tasks."""
        world, (scheduler, due) = self.world, place
        if world.max_running is not None and not world.spiteful:  # else its frame may be refused
            waits = self._waits(number, life)
            waiting = [
                (d, n)
                for n, (other, d) in life.told.items()
                if other == scheduler and self._waits(n, life) == waits
            ]
            if waiting and min(waiting) < (due, number):
                self.fault(f"{number}, due at {due}, overtook {min(waiting)} in {life.pid}")

    def _waits(self, number: int, life: Life) -> list[int]:
        """Return how a task waits for CONFIRM: others may overtake it."""
        return [story.confirmed for story in self._stories_of(life, [number])]

    # ---- from the tasks

    def begins(self, ident: int, life: Life, due: int, attempt: int) -> None:
        """Judge the first step of a task; most of the promises are about it.

        Args:
            ident: The task.
            life: The life in which it begins.
            due: Its due time, as it sees it.
            attempt: The number of this attempt, as it sees it.
        """
        world, story = self.world, self.stories[ident]
        world.say("start", ident, "in", life.pid)
        number, key = story.number, (story.scheduler, story.due)
        # A life that goes on may run tasks that the host had counted as started.
        left_over = life.apart and number in life.heard
        self._check(ident, not story.ends or left_over, "starts after its end")
        self._check(ident, life.born <= story.last_life, "starts, and was withdrawn or cancelled")
        # A frame that is read has been written, though the writer may not know yet.
        written = number in life.written or number in life.heard
        self._check(ident, written, "starts before that is written")
        if story.confirmed:
            has_word = life.apart or world.has_word(world.handles[ident])
            self._check(ident, number in life.heard and has_word, "starts without the host's word")
        if story.attempts:
            self._begins_again(ident, life)
        else:
            if not life.apart:
                self.order.append(ident)
            in_order = story.size < BLOB_LIMIT and not (story.moved or story.confirmed)
            if world.cls is TimedScheduler and in_order:
                before = life.latest.get(key, -1)
                self._check(ident, before < number, f"overtook {before}, due at the same time")
                life.latest[key] = number
        # A start under way wins, but not one announced after the request.
        gone = number in life.withdrawn or number in life.cancelled
        self._check(ident, not gone, "starts, and was withdrawn or cancelled before")
        early = min((story.due, *story.moves)) - self._latest_clock()
        self._check(ident, early <= 0, f"is early by {early / SECOND:.3f} s")
        given = {story.due, *story.moves}
        self._check(ident, due in given, f"believes that it was due at {due}, and not at {given}")
        if story.max_lateness is not None and not story.attempts and not story.moved:
            # Time may pass between the check and the step.
            late = world.clock() - story.due - story.max_lateness
            self._check(ident, late < SECOND // 10, f"starts too late by {late / SECOND:.3f} s")
        seen = look()
        self._check(ident, seen == story.context, f"sees {seen!r:.200}")
        story.attempts.append(Attempt(life, world.loop.time()))
        if not any(other.dead and other.place == life.place for other in world.lives):
            right = attempt == len(story.attempts)
            self._check(ident, right, f"believes that this is attempt {attempt}")
        self._takes_its_turn(ident, story.scheduler, life)

    def schedules_another(self, ident: int) -> bool:
        """Return whether a task schedules another."""
        self.followers += self.stories[ident].follows
        return self.stories[ident].follows

    def follows(self, wanted: Any, seen: Any) -> None:
        """Judge the first step of a task that was scheduled by another."""
        if seen != wanted:
            self.fault(f"a task that was scheduled with {wanted!r:.200} sees {seen!r:.200}")

    def _latest_clock(self) -> int:
        """Return the latest recent time: a task taken from its queue starts in spite of a jump."""
        world = self.world
        since = world.loop.time() - SLICE_PATIENCE
        return max(world.clock(), *(reached for at, reached in world.jumps if at > since), 0)

    def _begins_again(self, ident: int, life: Life) -> None:
        story, rerun = self.stories[ident], self.world.rerun
        last = story.attempts[-1]
        # Out of spite the host may have refused to hear that it had begun.
        bad = last.blocked and not (life.apart or self.world.spiteful)
        self._check(ident, not bad, "starts again, and has blocked its worker")
        if last.retry_at is None or not (last.heard or last.life is life):
            self._check(ident, rerun, "started twice")
            # A life that goes on after it was given up may run tasks counted as started there.
            self._check(ident, last.life.dead or life.apart, "runs in two processes at once")
        else:
            # In a spiteful world the former life's frame may have been taken for this one's.
            known = self.world.cls is TimedScheduler or last.life is life or not self.world.spiteful
            waited = self.world.elapsed() + 1000 >= last.waited_at
            waited |= self._latest_clock() >= last.retry_at  # if the clock has been set
            self._check(ident, waited or not known, "is tried again early")

    def _takes_its_turn(self, ident: int, scheduler: int, life: Life) -> None:
        if self.world.cls is not TimedScheduler:
            self._check(ident, not life.begun_now[scheduler], "runs beside another of its queue")
            head = life.waiting.pop(scheduler, ident)
            waits = self.stories[head]
            left = waits.asked or waits.withdrawn is not None or waits.ends
            self._check(ident, head == ident or left, f"overtook {head}, which is to be retried")
            self._check_heads_of_the_dead(ident, scheduler, life)
        elif self.world.max_running is not None:
            room = self.world.max_running - life.begun_now[scheduler]
            self._check(ident, room > 0, "runs beside as many as may run on its scheduler")
        life.begun_now[scheduler] += 1

    def _check_heads_of_the_dead(self, ident: int, scheduler: int, life: Life) -> None:
        """Judge that the waiting head of a queue whose process died comes first in the next."""
        if self.world.spiteful or life.apart:
            return
        for other in self.open:
            story = self.stories[other]
            if other == ident or (story.place, story.scheduler) != (life.place, scheduler):
                continue
            last = story.attempts[-1] if story.attempts else None
            if last is None or last.retry_at is None or not last.heard or story.asked:
                continue
            if last.life.born < life.born and story.withdrawn is None:
                self._check(other, False, f"was at the head, and {ident} has overtaken it")

    def leaves(self, ident: int, life: Life) -> None:
        """Note the last step of a task."""
        life.begun_now[self.stories[ident].scheduler] -= 1
        self.stories[ident].attempts[-1].over = True

    def runs(self, ident: int, life: Life) -> bool:
        """Return whether a task is between its first step and its last in a life."""
        attempts = self.stories[ident].attempts
        return bool(attempts) and attempts[-1].life is life and not attempts[-1].over

    def blocks(self, ident: int, life: Life) -> None:
        """End a life by blaming a task, which has blocked it or does not even run there."""
        story = self.stories[ident]
        story.named = True
        if self.runs(ident, life):
            story.attempts[-1].blocked = True
        life.block(story.scheduler, story.number)

    def is_forgiven(self, life: Life) -> None:
        """Note that the blame cannot be read: the task ends as at any death."""
        for story in self.stories:
            if story.attempts and story.attempts[-1].life is life:
                story.attempts[-1].blocked = False

    def is_cancelled(self, ident: int, life: Life, swallows: bool) -> None:
        """Judge a cancellation that a task sees, perhaps by its timeout."""
        story = self.stories[ident]
        story.cancels += 1
        ran = self.world.loop.time() - story.attempts[-1].began
        over = story.timeout is not None and ran + 1e-6 >= story.timeout
        wanted = over or story.asked or self.closing or life.told_to_go or life.apart
        self._check(ident, wanted, "was cancelled inside by nobody")
        if over and not swallows:
            self.fails(ident, life, TimeoutError())

    def may_die_of(self, ident: int, life: Life) -> bool:
        """Return whether a task that ends its process does so: the first time."""
        return len(self.stories[ident].attempts) == 1 and self.world.may_die(life)

    def fails_again(self, ident: int, times: int) -> bool:
        """Return whether this attempt of a task that fails some times fails."""
        return len(self.stories[ident].attempts) <= times

    def fails(self, ident: int, life: Life, error: BaseException) -> BaseException:
        """Note that an attempt fails, and what must follow; return the error."""
        story, world = self.stories[ident], self.world
        last = story.attempts[-1]
        last.failed = True
        failed = sum(a.failed and (a.counted or a.life is life) for a in story.attempts)
        wait = wait_after(story.retry, error, failed)
        world.say("fails", ident, repr(error), "and waits", wait)
        if wait is not None:
            last.retry_at = world.clock() + int(wait * SECOND)
            last.waited_at = world.elapsed() + int(wait * SECOND)
            if world.cls is not TimedScheduler:
                life.waiting[story.scheduler] = ident
        return error

    # ---- counts

    def check_counts(self, thorough: bool) -> None:
        """Judge the counts, which must be right between any two deeds."""
        self.world.recycled.check()
        manager, stories = self.world.manager, self.stories
        placement = manager._router.placement
        waiting = ended = 0
        for ident, task in list(self.open.items()):
            state = task.state
            ended += task.done()
            story = stories[ident]
            if state is State.PENDING and not (story.asked or story.leaves):
                waiting += 1
        if not self._is(len(manager), waiting):
            self.fault(f"{waiting} tasks wait to start, and the manager says {len(manager)}")
        if len(manager) != sum(placement.waiting):
            self.fault(f"the places count {placement.waiting}, and the manager {len(manager)}")
        left = len(self.open) - ended
        if not self._is(placement.all_loads, left):
            self.fault(f"{left} tasks have not ended, and the manager says {placement.all_loads}")
        if thorough:
            running = sum(task.state is State.RUNNING for task in self.open.values())
            told = manager.stats().running
            if not self._is(told, running):
                self.fault(f"{running} tasks run, and the statistics say {told}")
            self._check_list()
            if self.world.max_running is not None:
                self._check_limit(self.world.max_running)

    def _check_list(self) -> None:
        """Judge the list: each pending or running task, once and as it is."""
        links = self.world.manager._router.links
        infos = [info for link in links for part in link.infos(Wanted()) for info in part]
        listed = {info.ref: info for info in infos}
        if len(listed) != len(infos):
            self.fault("a task is listed twice")
        for ident, task in self.open.items():
            story = self.stories[ident]
            if task.done() or (task.state is State.PENDING and (story.asked or story.leaves)):
                continue
            info = listed.get(task.ref)
            told = info and (info.state, info.due, info.id)
            right = task.state, task.due, story.id_
            self._check(ident, told == right, f"is {right}, and listed as {told}")

    def _check_limit(self, most: int) -> None:
        """Judge that by the host's counts, too, no more tasks run on a scheduler than may."""
        running = [self.stories[n] for n, task in self.open.items() if task.state is State.RUNNING]
        for place, count in Counter((story.place, story.scheduler) for story in running).items():
            if count > most:
                self.fault(f"{count} tasks run in {place}, where {most} may")

    def _is(self, told: int, own: int) -> bool:
        """Return whether a count is right, apart from tasks without a handle."""
        return own <= told <= own + self.unheard + self.followers
