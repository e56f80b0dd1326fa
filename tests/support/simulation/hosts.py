"""Everything that a seed decides of hosts that succeed one another on one store.

    HostWorld ─► Host ─ crash, or close ─► Host ─► … ─► the last one, which runs all that is left
                  └ Manager, deeds            └─ the same Disk

A crash comes at any point: between two turns of the loop, or within one (`Host.suffer`). What the
host was about to do is never done or reported; what it has written into pipes arrives; its workers
go on for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context, ContextVar, copy_context
from datetime import timedelta
from functools import partial
from typing import Any
from weakref import WeakSet

from aioscheduler import (
    Manager,
    ManagerClosed,
    QueuedScheduler,
    StoreError,
    Task,
    TaskRef,
    TimedScheduler,
    UnknownTask,
    WorkerStartError,
    registry,
)
from aioscheduler._durable.group import Kept
from aioscheduler._durable.records import BUCKET_SHIFT, Row
from aioscheduler._routing import paging
from aioscheduler._routing.assembly import Seams
from aioscheduler._routing.localentry import close
from aioscheduler._routing.shelf import SHELF
from aioscheduler._scheduling.clock import SECOND
from aioscheduler._scheduling.coroutines import close_unstarted

from .disk import Disk, SlowWriter
from .durables import HOSTS, QUEUED, TIMED, chain, plain
from .fates import Fate, Fates, Start
from .lives import LIFE, Life
from .spite import Spiteful
from .stage import EPOCH, Stage
from .virtual import VirtualLoop

HOST: ContextVar[Host | None] = ContextVar("HOST", default=None)
LINGERING = 2.0  # seconds for which workers may go on without a host
LONGEST = 3000.0  # virtual seconds in which everything must have ended
PAYLOADS = (0, 100, 3_000, 40_000)  # bytes, at most
DEEDS = ("again 1", "again 2", "again 3", "raises", "is unreadable", "converts", "cleans up")
POISONS = ("kills a worker", "kills the host")


class OwnLife(Life):
    """A life that may outlive its host.

    Attributes:
        host: Whose it is.
    """

    def __init__(self, world: HostWorld, *life: Any) -> None:
        self.host = world.host
        super().__init__(world, *life)
        world.own.append(self)

    def suffer(self, probability: float) -> None:
        """Perhaps let its host die, as it reads or writes."""
        if HOST.get() is self.host:
            self.host.suffer()

    def orphan(self) -> None:
        """Go on for a while, unaware that the host is gone."""
        if self.dead:
            return
        self.dead = True
        self.to_host.lose()
        self.to_worker.cut = True
        if self._serving is None:
            return
        self.apart = True
        chance = self.world.random
        linger = chance.choice((0.0, 0.1, LINGERING)) * chance.random()
        self.world.loop.call_later(linger, self._notice, context=self.context)


class Everything:
    """A container of everything."""

    def __contains__(self, number: object) -> bool:
        return True


class OwnPlace:
    """Stands for a life where tasks run in their host's own loop, and die with it.

    Attributes:
        host: Whose it is.
    """

    place, born, apart = 0, 0, False
    written = heard = Everything()

    def __init__(self, host: Host) -> None:
        self.host = host

    @property
    def pid(self) -> str:
        return f"host {self.host.number}"

    @property
    def dead(self) -> bool:
        return self.host.dead or self.host.gone.done()


class Host:
    """One host: a manager on the store, until it dies or is closed.

    Args:
        world: Whose it is.
        is_last: Whether it stays until all tasks have ended.

    Attributes:
        number: Its number, from 0.
        dead: Whether it has died.
        gone: Done when it has died.
        base: The tasks in the file when it began.
        in_doubt: A task due before this may have begun in the former host.
        starts: Of tasks, by life and number.
        latest: The row that began last, by scheduler and due time.
        tasks: Its own tasks of the loop.
        place: The stand-in for lives, if it has no workers.
    """

    def __init__(self, world: HostWorld, is_last: bool) -> None:
        self.world = world
        self.number = world.count
        self.is_last = is_last
        self.dead = False
        self.gone: asyncio.Future[None] = world.loop.create_future()
        self.base: dict[int, Row] = {}
        self.in_doubt = 0
        self.starts: dict[tuple[int, int], Start] = {}
        self.latest: dict[tuple[int, int, int], int] = {}
        self._context = copy_context()
        self._context.run(HOST.set, self)
        self._handles: list[tuple[Fate, Task[Any]]] = []
        self._fragile = 0.0 if is_last or world.calm else world.random.choice((0.0, 0.0, 0.002))
        self._idents: dict[tuple[int, int], Fate] = {}  # the tasks it has scheduled
        self.place = OwnPlace(self)
        self.tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._spawned: list[Coroutine[Any, Any, None]] = []
        self._rest: list[asyncio.Task[Any]] = []

    def kept(self, worker: int, number: int) -> Any:
        """Return what the host keeps of a task."""
        keeper = self.manager._router.keeper
        assert keeper is not None
        return keeper.keepings[worker].kept.get(number)

    def number_of(self, worker: int, number: int) -> int:
        """Return the number of a task at its link."""
        if not self.manager._remotes:
            return number
        return self.manager._remotes[worker].book.number_of(number)

    # ---- its life

    def live(self) -> asyncio.Task[None]:
        return self.world.loop.create_task(self._live(), context=self._context)

    async def _live(self) -> None:
        world, chance = self.world, self.world.random
        workers = 0 if chance.random() < world.alone else chance.randint(1, 3)
        if not workers:
            world.missed |= world.unknown_to_host
        world.say("host", self.number, "begins with", workers)
        seams = Seams(
            world.clock,
            lambda config, *_: partial(OwnLife, world, config),
            partial(SlowWriter, world, self),  # type: ignore[arg-type]
        )
        options: dict[str, Any] = {
            "cls": world.cls,
            "workers": workers,
            "max_restarts": (0, 1.0) if world.calm else (10**9, 1.0),
            "store": world.disk,
            "_seams": seams,
        }
        self.manager = world.manager = Manager(max(workers, 1) * chance.randint(1, 2), **options)
        if chance.random() < 0.3:
            self._schedule()
        self.manager.start()
        if chance.random() < 0.5:
            await self._ready()
        deeds = (
            *(self._schedule, self._map, self._chain, self._cancel, self._reschedule),
            *(self._acknowledge, self._sync, self._requeue, self._hurt, world.set_clock),
            *(world.change_disk, self._list, self._look_for, self._ask_by_reference),
        )
        violence = 0.0 if world.calm else chance.choice((0.0, 0.5, 2))
        # A cancelled task that begins all the same is no longer durable: its death would count.
        rarely = 0.0 if world.calm else 1.0
        weights = (
            *(10, 2, 1, 2 * rarely, 2, 4, 2, 0.5),
            *(violence, world.jumping, 0.3 * rarely),
            *(0.5, 0.5, rarely),
        )
        for _ in range(chance.randint(0, 40)):
            chance.choices(deeds, weights)[0]()
            if chance.random() < 0.6:
                await asyncio.sleep(chance.choice((0, 0.001, 0.1, 2)) * chance.random())
        if self.is_last:
            await self._drain()
        await self._close()

    async def _ready(self) -> None:
        try:
            await self.manager.ready()
        except (WorkerStartError, ManagerClosed):  # the seed refused it
            self.world.say("host", self.number, "has failed")

    async def _drain(self) -> None:
        """Run all tasks that are left, and check the counts."""
        world, manager = self.world, self.manager
        world.heal()
        await self._ready()
        if manager._router.closed is not None:
            return
        async with asyncio.timeout(LONGEST):
            while asked := [task for task in self._rest if not task.done()]:  # it may requeue
                await asyncio.wait(asked)
            await manager.join()
        await manager.sync()
        stats, fault = manager.stats(), world.fates.fault
        known = 0, len(world.fates.letters)
        if (stats.stored, stats.dead_letters) != known:
            fault(f"stats say {stats.stored, stats.dead_letters}, and there are {known}")
        if len(manager):
            fault(f"{manager!r} counts {len(manager)} after all has ended")
        letters = {letter.row: letter.reason async for letter in manager.dead_letters()}
        if letters != {row: reason.value for row, reason in world.fates.letters.items()}:
            fault(f"there are the letters {world.fates.letters}, and it lists {letters}")
        world.drained = True

    async def _close(self) -> None:
        world = self.world
        world.say("host", self.number, "closes")
        failed = self.manager._router.closed is not None
        async with asyncio.timeout(LONGEST):
            await self.manager.close(world.random.choice((0, 0.3, 5)) * world.random.random())
        await asyncio.sleep(0)
        if world.fates.is_closed and not (failed or world.disk.is_full):
            for fate, task in self._handles:
                world.fates.is_over(fate, task)
        world.say("host", self.number, "has closed")

    # ---- its death

    def suffer(self) -> None:
        """Perhaps die, within a deed."""
        if self._fragile and self.world.random.random() < self._fragile:
            self.die()

    def die(self) -> None:
        """Die: calls have no effect from now on, and no callback runs."""
        if self.dead or self.gone.done():
            return
        self.world.say("host", self.number, "dies")
        self.dead = True
        for life in self.world.own:
            if life.host is self:
                life.orphan()
        self.world.loop.call_soon(self._drop, context=Context())

    def _drop(self) -> None:
        loop: Any = self.world.loop
        self._rest += self.tasks  # else asyncio would report that nobody awaited them
        for coro in (*(task.get_coro() for task in self.tasks), *self._spawned):
            close_unstarted(coro)
        for link in self.manager._router.links:  # likewise tasks that have not begun here
            for engine in getattr(link, "engines", ()):
                for entry in (*engine.waiting.values(), *engine._launched.values()):
                    close(entry)
                for task, entry in engine.running.values():  # which no factory has made
                    self._rest.append(task)
                    close_unstarted(task.get_coro())
                    close(entry)
        for handle in [*loop._ready, *loop._scheduled]:
            if handle._context.get(HOST) is self:
                handle.cancel()
        self.gone.set_result(None)

    # ---- scheduling

    def _delay(self) -> timedelta | None:
        chance = self.world.random
        if self.world.cls is QueuedScheduler:
            return None
        return timedelta(seconds=chance.choice((0.0, 0.5, chance.random() * 5, 20.0)))

    def _draw(self, functions: tuple[Any, ...]) -> tuple[Any, str, float, bytes]:
        """Draw a function, its deed, its duration, and the size of its arguments."""
        chance = self.world.random
        function = chance.choice(functions)
        deed = chance.choice(DEEDS) if chance.random() < 0.2 else ""
        if self.world.poisons and function.__name__ in ("plain", "retried"):
            deed = self.world.poisons.pop()
        elif not self.world.calm and chance.random() < 0.05:
            deed = f"{chance.choice(POISONS)}, once"
        if deed == "is unreadable" and function is not plain:
            deed = ""
        nap = chance.choice((0.0, 0.0, chance.random(), chance.random() * 3))
        padding = bytes(chance.randint(0, chance.choices(PAYLOADS, (10, 5, 2, 0.3))[0]))
        return function, deed, nap, padding

    def _note(self, function: Any, deed: str, nap: float, size: int, due: int, **more: Any) -> Fate:
        found = registry.of_function(function)
        assert found is not None
        early = not self._is_open or ("id_" in more and not self._is_whole)
        return self.world.fates.new(
            found.name, {due}, deed=deed, nap=nap, size=size, early=early, **more
        )

    @property
    def _is_whole(self) -> bool:
        """Return whether all of the file is in memory: then the owner of any id is known."""
        keeper = self.manager._router.keeper
        return keeper is not None and keeper.where.horizon.is_whole

    @property
    def _is_open(self) -> bool:
        keeper = self.manager._router.keeper
        return keeper is not None and keeper.is_open

    def _schedule(self, id_: str | None = None) -> None:
        chance, world = self.world.random, self.world
        if self.manager._router.closed is not None:
            return
        function, deed, nap, padding = self._draw(QUEUED if self._delay() is None else TIMED)
        delay = self._delay()
        if id_ is None and chance.random() < world.naming:
            id_ = chance.choice("abc")
        replace = id_ is not None and chance.random() < 0.5
        known = None if id_ is None else self._find(id_)
        fate = self._note(
            function, deed, nap, len(padding), world.due(delay), id_=id_, replaces=replace
        )
        arguments: tuple[Any, ...] = fate.ident, nap, deed, padding
        if deed == "is unreadable":
            arguments += (Spiteful("read an argument", "plain"),)
        key = chance.choice((None, None, "a", "b"))
        try:
            task = self.manager.schedule(
                function(*arguments), delay, key=key, id=id_, replace=replace
            )
        except StoreError as error:
            world.say("refused", fate.ident, error)
            return
        world.say("schedule", fate.ident, fate.kind, delay, nap, deed, id_, replace, task.ref)
        if known is not None and not replace:
            self._check_taken(known, fate, task)
            self._handles.append((known, task))
            return
        if known is not None:
            self.world.fates.was_asked_to_end(known, self)
        self._watch(fate, task)
        if id_ is not None and chance.random() < 0.5:
            task.add_done_callback(partial(self._schedule_again, id_))

    def _schedule_again(self, id_: str, task: Task[Any]) -> None:
        """Schedule another task with the id of one that has ended, perhaps in the same turn."""
        if not self.dead:
            self._schedule(id_)

    def _check_taken(self, known: Fate, fate: Fate, task: Task[Any]) -> None:
        found = self._fate_at(*self._address(task))
        if found is not known:
            self.world.fates.fault(f"{known} has the id, and {found} was returned for {fate}")

    def _address(self, task: Task[Any]) -> tuple[int, int]:
        links: list[Any] = list(self.manager._router.links)
        return links.index(task._home) if task._home in links else SHELF, task._number

    def _find(self, id_: str) -> Fate | None:
        """Return the task that has an id in this host."""
        address = self.manager._router.known(id_)
        return None if address is None else self._fate_at(address[0], address[2])

    def _fate_at(self, worker: int, number: int) -> Fate | None:
        if (worker, number) in self._idents:
            return self._idents[worker, number]
        if worker == SHELF:
            return self.world.fates.by_row.get(number)
        kept = self.kept(worker, number)
        if kept is None:
            return None
        return self.world.fates.by_row.get(kept.row) or self._idents.get((SHELF, kept.row))

    def _watch(self, fate: Fate, task: Task[Any]) -> None:
        self._idents[self._address(task)] = fate
        self._handles.append((fate, task))
        kept = getattr(task, "_kept", None)
        if isinstance(kept, Kept) and kept.row >= 0 and not (fate.early and fate.id_):
            fate.row = kept.row
            if len(self.world.refs) < 1000:
                self.world.refs.append((task.ref, fate))

    def _map(self) -> None:
        if self.manager._router.closed is not None:
            return
        world, chance = self.world, self.world.random
        delay = self._delay()
        due, count = world.due(delay), chance.randint(1, 30)
        function, deed, nap, padding = self._draw(QUEUED[:4])
        if deed.startswith("kills") or deed == "is unreadable":
            world.poisons += [deed] if deed in POISONS else []
            deed = ""
        fates = [self._note(function, deed, nap, len(padding), due) for _ in range(count)]
        calls = [(fate.ident, nap, deed, padding) for fate in fates]
        try:
            batch = self.manager.starmap(function, calls, delay)
        except StoreError as error:
            world.say("refused", error)
            return
        world.say("map", fates[0].ident, count, fates[0].kind, delay, nap, deed)
        for n, fate in enumerate(fates):
            self._watch(fate, batch[n])

    def _chain(self) -> None:
        if self.manager._router.closed is not None:
            return
        world, chance = self.world, self.world.random
        name = f"chain {len(world.chains)}"
        delay = self._delay()
        step = None if delay is None else chance.choice((0.0, 0.3, 1.5))
        length = chance.randint(1, 12)
        world.chains[name] = length
        nap = chance.choice((0.0, 0.1))
        fate = self._note(chain, "", nap, 0, world.due(delay), id_=name)
        coro = chain(fate.ident, nap, name, length - 1, step)
        try:
            task = self.manager.schedule(coro, delay, id=name)
        except StoreError as error:
            world.say("refused", error)
            return
        world.say("chain", fate.ident, name, length, step)
        self._watch(fate, task)

    # ---- requests

    def _choose(self) -> tuple[Fate, Task[Any]] | None:
        own = [pair for pair in self._handles if not pair[1].done()]
        if not own:
            return None
        fate, task = self.world.random.choice(own)
        fate = self._fate_at(*self._address(task)) or fate  # it may have been resolved to another
        return None if fate.kind == "chain" else (fate, task)

    def _cancel(self) -> None:
        chosen = self._choose()
        if chosen is not None:
            fate, task = chosen
            if task.cancel():
                self.world.say("cancel", fate.ident)
                for each in self._those(fate):
                    self.world.fates.was_asked_to_end(each, self)
                if self._is_open:
                    fate.cancelled.add(self.number)
                self._spawn(self._forgo(fate))

    def _those(self, fate: Fate) -> list[Fate]:
        """Return a task, and, before the file is open, the one that it may be resolved to."""
        is_early = fate.early and fate.row is None and fate.id_ is not None
        return [fate, *(self.world.fates.with_id(str(fate.id_)) if is_early else ())]

    async def _forgo(self, fate: Fate) -> None:
        """Wait until the request to end a task is on disk, whether it has begun or not."""
        await self.manager.sync()
        if fate.requeued is None:
            self.world.fates.is_forgone(fate, self)

    def _reschedule(self) -> None:
        chosen = self._choose()
        if chosen is not None and self.world.cls is not QueuedScheduler:
            fate, task = chosen
            delay = self._delay()
            due = self.world.due(delay)
            if task.reschedule(delay):
                self.world.say("reschedule", fate.ident, delay)
                for each in self._those(fate):
                    each.dues.add(due)
                    each.moves += 1

    def _spawn(self, coro: Coroutine[Any, Any, None]) -> None:
        async def quietly() -> None:
            try:
                await coro
            except (StoreError, ManagerClosed) as error:
                self.world.say("not any more:", error)

        self._spawned.append(coro)
        self._rest.append(self.world.loop.create_task(quietly()))

    def _acknowledge(self) -> None:
        chosen = self._choose()
        if chosen is not None:
            self._spawn(self._wait_stored(*chosen))

    async def _wait_stored(self, fate: Fate, task: Task[Any]) -> None:
        await task.stored()
        self.world.say("stored", fate.ident)
        self.world.fates.is_acknowledged(fate)

    def _sync(self) -> None:
        self._spawn(self._wait_synced([fate for fate, _ in self._handles]))

    async def _wait_synced(self, fates: list[Fate]) -> None:
        await self.manager.sync()
        self.world.say("synced", len(fates))
        for fate in fates:
            self.world.fates.is_acknowledged(fate)

    def _requeue(self) -> None:
        self._spawn(self._requeue_some())

    async def _requeue_some(self) -> None:
        world, manager = self.world, self.manager
        ids = {letter.row: letter.id async for letter in manager.dead_letters(limit=3)}
        for row in ids:
            fate = world.fates.by_row[row]
            if fate.kind == "chain" or fate.deed in POISONS:
                continue
            delay = self._delay()
            try:
                task = await manager.requeue(row, delay)
            except (ValueError, LookupError) as error:  # its id is taken, or it is requeued
                world.say("not requeued", row, error)
                continue
            fate.starts, fate.requeued, fate.dues, fate.asked = [], self.number, set(), set()
            fate.forgone = None  # it was a letter then
            fate.id_ = ids[row]  # another may have taken it
            fate.dues.add(world.due(delay))
            self._handles = [pair for pair in self._handles if pair[0] is not fate]
            world.say("requeue", row, fate.ident)
            self._watch(fate, task)

    def _list(self) -> None:
        if self._is_open:
            self._spawn(self._list_all())

    async def _list_all(self) -> None:
        """List all tasks: those that exist all the time are listed once."""
        world, manager, chance = self.world, self.manager, self.world.random
        prefix = "chain" if chance.random() < 0.2 else None
        before, moves = dict(world.fates.rows), {}
        moves = {row: world.fates.by_row[row].moves for row in before}
        found: list[int] = []
        async for info in manager.tasks(id_prefix=prefix):
            if info.ref.is_durable:
                found.append(info.ref.number)
            if chance.random() < 0.1:
                await asyncio.sleep(chance.choice((0, 0.01, 1)) * chance.random())
        await manager.sync()
        if manager._router.closed is not None:  # then links list none of the kept tasks
            return
        if len(found) != len(set(found)):
            world.fates.fault(f"tasks are listed twice: {sorted(found)}")
        for row, known in before.items():
            fate = world.fates.by_row[row]
            there = row in world.fates.rows and moves[row] == fate.moves and not fate.asked
            there &= world.fates.rows.get(row) == known  # it was not retried meanwhile
            wanted = prefix is None or (known.id is not None and known.id.startswith(prefix))
            if there and wanted and row not in found:
                world.fates.fault(f"{fate} is not listed, and {known} was there all the time")

    def _look_for(self) -> None:
        if self._is_open:
            self._spawn(self._find_one(self.world.random.choice("abc")))

    async def _find_one(self, id_: str) -> None:
        """Look up an id: it is that of the file, unless it has changed since."""
        world, manager = self.world, self.manager
        await manager.sync()
        rows = [row for row in world.fates.rows.values() if row.id == id_]
        task = await manager.find(id_)
        if task is None:
            for row in rows:
                fate = world.fates.by_row[row.row]
                if fate.asked or fate.starts or world.fates.rows.get(row.row) != row:
                    continue
                await manager.sync()
                if (
                    manager._router.closed is None
                    and world.fates.rows.get(row.row) == row
                    and not (fate.asked or fate.starts)
                ):
                    world.fates.fault(f"{fate} has the id {id_} and is not found")
        elif task.id not in (id_, None):
            world.fates.fault(f"{task} was found for the id {id_}")

    def _ask_by_reference(self) -> None:
        """Make a request of a task by its reference, from this host or an earlier one."""
        world, chance = self.world, self.world.random
        if not self._is_open or self.manager._router.closed is not None or not world.refs:
            return
        ref, fate = chance.choice(world.refs)
        if fate.kind == "chain" or fate.requeued is not None:
            return
        deed = chance.choice(("cancel", "reschedule", "task"))
        keeper = self.manager._router.keeper
        at = None if keeper is None else keeper.where.find(ref.number)
        if at is not None:  # a task asked to end keeps its id until it has ended
            self._idents.setdefault(at, fate)
        try:
            if deed == "cancel":
                if self.manager.cancel(ref):
                    world.say("cancel", fate.ident, "by", ref)
                    world.fates.was_asked_to_end(fate, self)
                    self._spawn(self._forgo(fate))
            elif deed == "reschedule" and world.cls is not QueuedScheduler:
                delay = self._delay()
                fate.dues.add(world.due(delay))
                fate.moves += 1
                moved = self.manager.reschedule(ref, delay)
                world.say("reschedule", fate.ident, delay, "by", ref, moved)
            else:
                task = self.manager.task(ref)
                task.add_done_callback(lambda task: None)
        except UnknownTask as error:
            world.say(error)

    # ---- what goes wrong

    def _hurt(self) -> None:
        world, chance = self.world, self.world.random
        alive = world.alive() if self._is_open else []
        if alive:
            life = chance.choice(alive)
            deed = chance.choice(("kill", "kill", "freeze", "drain"))
            world.say(deed, life.pid)
            if deed == "kill":
                life.die()
            elif deed == "drain":
                life.drain()
            else:
                life.freeze(chance.random() * 3)


class _Nobody:
    """Nothing is recycled here."""

    def measure(self, life: Life) -> int:
        return 0

    def tells_to_go(self, life: Life) -> None:
        raise AssertionError(f"{life.pid} is recycled")


class HostWorld(Stage):
    """Everything that a seed decides of hosts that succeed one another.

    Attributes:
        fates: The model of the tasks.
        disk: The file.
        cls: The class of the schedulers.
        calm: Whether hosts and workers die only by tasks.
        poisons: The tasks that kill at each start, still to be scheduled.
        chains: The length of each chain of tasks.
        missed: The functions that some host does not know.
        unknown_to_host: Functions that the present host does not know, but its workers do.
        naming: How many tasks have ids.
        jumping: How often the clock is set.
        own: All lives so far.
        refs: References of scheduled tasks, of all hosts.
        count: How many hosts there were before this one.
        drained: Whether all tasks have ended.
        alone: How many hosts have no workers.
    """

    host: Host

    def __init__(self, seed: int, loop: VirtualLoop, trace: bool) -> None:
        super().__init__(seed, loop, trace)
        chance = self.random.random
        self.fates = self.model = Fates(self)
        self.recycled = _Nobody()
        self.disk = Disk(self)
        self.cls = TimedScheduler if chance() < 0.6 else QueuedScheduler
        self.calm = chance() < 0.2
        self.poisons: list[str] = []
        if self.calm:
            self.poisons = [self.random.choice(POISONS) for _ in range(self.random.randint(1, 2))]
        self.chains: dict[str, int] = {}
        self.missed: set[str] = set()
        self.unknown_to_host: set[str] = set()
        self._hidden: set[str] = set()  # from host and workers
        self.naming = 0.0 if self.calm else self.random.choice((0.0, 0.1, 0.4))
        self.jumping = 0.3 if not self.calm and chance() < 0.2 else 0.0
        if chance() < 0.5:  # a task that is put off may move to another bucket
            border = ((EPOCH >> BUCKET_SHIFT) + 1) << BUCKET_SHIFT
            self.offset = border - EPOCH - self.random.randrange(60 * SECOND)
        self.own: list[OwnLife] = []
        self.refs: list[tuple[TaskRef, Fate]] = []
        self.count = 0
        self.drained = False
        self.alone = 0.0 if self.calm else self.random.choice((0.0, 0.0, 0.3, 1.0))
        self._find = registry.find
        self.paging = {  # in some seeds few tasks are in memory
            "MOST": self.random.choice((250_000, 30, 5)),
            "PART": self.random.choice((1 << 16, 10, 1)),
            "SLICE": self.random.choice((256, 3, 1)),
            "AHEAD": self.random.choice((60, 5)) * SECOND,
        }
        if not self.calm:
            self.disk.slowness = self.random.choice((0.0, 0.003, 0.05))

    def _make_task(
        self,
        loop: asyncio.AbstractEventLoop,
        coro: Any,
        context: Context | None = None,
        **more: Any,
    ) -> asyncio.Task[Any]:
        """Make a task of the loop, which its host forgets when it dies."""
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, context=context, **more)
        host = HOST.get() if context is None else context.get(HOST)
        if host is not None:
            host.tasks.add(task)
        return task

    def left(self) -> list[Row]:
        return list(self.fates.rows.values())

    def due(self, delay: timedelta | None) -> int:
        if self.cls is QueuedScheduler:
            return 0
        return self.clock() + (int(delay / timedelta(microseconds=1)) * 1000 if delay else 0)

    # ---- what goes wrong

    def change_disk(self) -> None:
        """Make the disk full or not, or slow or not."""
        self.disk.is_full = self.random.random() < 0.4
        self.disk.slowness = self.random.choice((0.0, 0.003, 0.05, 2.0))
        self.say("disk", self.disk.is_full, self.disk.slowness)

    def heal(self) -> None:
        self.disk.is_full, self.disk.slowness = False, 0.003
        self._hidden.clear()

    def may_die(self, life: Life) -> bool:
        return life in self.own and life.host is self.host and super().may_die(life)  # type: ignore[attr-defined]

    def kill_by(self, start: Start, once: bool) -> None:
        """Let a task's process die, if it may."""
        life = start.life
        if (
            isinstance(life, OwnLife)
            and self.may_die(life)
            and not (once and len(start.fate.starts) > 1)
        ):
            life.die()
            raise asyncio.CancelledError  # a process that is gone reports nothing more

    def crash_by(self, start: Start, once: bool) -> None:
        """Let a task kill the host, if it may."""
        if start.life.host is self.host and not (once and len(start.fate.starts) > 1):
            if self.host.is_last and not self.calm:
                return
            self.host.die()

    def find(self, name: str) -> registry.Durable | None:
        """Return the registered functions that the host, or a worker of its, knows."""
        is_worker = LIFE.get(None) is not None
        hidden = self._hidden if is_worker else self._hidden | self.unknown_to_host
        return None if name in hidden else self._find(name)

    def deploy(self) -> None:
        """Draw the functions that the next host knows."""
        self._hidden, self.unknown_to_host = set(), set()
        if not self.calm and self.random.random() < 0.3:
            names = ("plain", "retried", "once", "limited")
            self.unknown_to_host = {self.random.choice(names)}
            if self.random.random() < 0.5:
                self._hidden = {self.random.choice(names)}
                self.missed |= self._hidden
            self.say("unknown:", self.unknown_to_host, "and at all:", self._hidden)

    # ---- the whole story

    async def run(self) -> None:
        """Live through the seed's story, and judge it."""
        HOSTS.append(self)
        usual = {name: getattr(paging, name) for name in self.paging}
        vars(paging).update(self.paging)
        self.loop.set_task_factory(self._make_task)
        registry.find = self.find
        try:
            hosts = self.random.randint(2, 6)
            while not self.drained and self.count < 30 and not self.fates.faults:
                await self._live_one(self.count >= hosts or self.calm)
                self.count += 1
            if not self.drained and not self.fates.faults:
                self.fates.fault("it does not come to an end")
            if not self.fates.faults:
                self.fates.judge()
        finally:
            registry.find = self._find
            vars(paging).update(usual)
            HOSTS.clear()

    async def _live_one(self, is_last: bool) -> None:
        self.deploy()
        self.host = Host(self, is_last)
        if not is_last and self.random.random() < 0.7:
            scale = self.random.choice((0.01, 1, 10, 60))
            self.loop.call_later(self.random.random() * scale, self.host.die)
        lives = self.host.live()
        await asyncio.wait([lives, self.host.gone], return_when=asyncio.FIRST_COMPLETED)
        if lives.done():
            if not self.host.gone.done():
                self.host.gone.set_result(None)
            lives.result()
        down = self.random.choice((0.0, 0.5, 30)) * self.random.random()
        await asyncio.sleep(down)
        if self.jumping and self.random.random() < 0.3:
            self.set_clock()
