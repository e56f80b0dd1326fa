"""A shelf with all its collaborators, except that links and writer are fakes moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import homes
import reminders
from stores import HandWriter, TrickyStore

from aioscheduler import registry
from aioscheduler._durable.group import Group, Kept
from aioscheduler._durable.records import BUCKET_SHIFT, Batch, Function, Position, Row
from aioscheduler._routing.asking import Asking
from aioscheduler._routing.commits import Commits
from aioscheduler._routing.drafts import Draft, Drafts
from aioscheduler._routing.functions import Functions
from aioscheduler._routing.ids import Address
from aioscheduler._routing.listeners import Listeners
from aioscheduler._routing.lookups import Lookups
from aioscheduler._routing.restoring import Early
from aioscheduler._routing.shelf import Shelf
from aioscheduler._routing.shelflisting import ShelfListing
from aioscheduler._routing.storedcalls import Notes, Stored
from aioscheduler._routing.whereabouts import Whereabouts
from aioscheduler._scheduling.loopthread import LoopThread
from aioscheduler._shipping.hostcatalog import HostCatalog
from aioscheduler._shipping.hostshipping import HostShipper
from aioscheduler._shipping.workercatalog import WorkerCatalog
from aioscheduler._transport import wire
from aioscheduler.batch import Batch as UserBatch
from aioscheduler.inspection import Wanted
from aioscheduler.outcomes import Outcomes, Part
from aioscheduler.task import State, Task

NOW = 10**18
HOUR = 1 << BUCKET_SHIFT
"""Nanoseconds of a bucket of the file."""

PLACE = f"{reminders.__name__}:note"
NOTE = Function(1, "test.note", PLACE, once=False)


def row_of(number: int, due: int = NOW + HOUR, id_: str | None = None) -> Row:
    """Return a task of a file."""
    return Row(number, due, 1, wire.pack([number]), id=id_)


class Link(homes.Home):
    """A link whose tasks run until a test ends them.

    Attributes:
        batched: Tasks of batches that have arrived.
        ids: The ids of its tasks.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._listeners = Listeners(self)
        self.batched: list[Part] = []
        self.ids: dict[int, str] = {}

    def find(self, scheduler: int, number: int) -> Task[Any]:
        task = self._listeners.handle_of(number)
        task = task or self._listeners.hand_out(scheduler, number, 0, "")
        task._id = self.ids.get(number)
        return task

    def dispossess(self, scheduler: int, number: int) -> None:
        self.ids.pop(number, None)
        self.find(scheduler, number)
        self.cancel(scheduler, number)

    def attach(self, task: Task[Any], scheduler: int, number: int) -> None:
        self._listeners.put(task, scheduler, number)

    def attach_part(self, part: Part) -> None:
        self.batched.append(part)

    def end(self, number: int, state: State = State.FINISHED, value: Any = None) -> None:
        self._listeners.settle(number, state, value, None)


class Admitted:
    """A fake `restoring.Admission`.

    Attributes:
        rows: The tasks admitted, by number: a call is its row here.
        ids: The owners of ids at the links.
        dispossessed: The owners that had to give up an id.
        leads: The targets of aliases.
        shelved: How many tasks are only in the file.
        left_out: Early tasks that were left out.
        early: Their handles, by number.
    """

    is_over = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.links = [Link(loop), Link(loop)]
        self.rows: dict[int, Row] = {}
        self.ids: dict[str, Address] = {}
        self.dispossessed: list[Address] = []
        self.leads: dict[int, Address] = {}
        self.shelved = 0
        self.left_out: list[Early] = []
        self.early: dict[int, Task[Any]] = {}

    def locate(self, worker: int, number: int) -> tuple[Link, int]:
        return self.links[worker], 0

    def find(self, id_: str, before: int) -> Address | None:
        known = self.ids.get(id_)
        return known if known is not None and self.rows[known[2]].row < before else None

    def dispossess(self, address: Address) -> None:
        self.dispossessed.append(address)

    def lead(self, alias: int, address: Address) -> None:
        self.leads[alias] = address

    async def flush(self) -> None:
        await asyncio.sleep(0)

    def count_shelved(self, change: int) -> None:
        self.shelved += change

    def admit(self, due: int, key: Any, id_: str | None, call: Any) -> tuple[int, int]:
        number = len(self.rows)
        self.rows[number] = call
        worker = number % 2
        if id_ is not None:
            self.ids[id_] = (worker, 0, number)
            self.links[worker].ids[number] = id_
        return worker, number

    def leave_out(self, early: Early) -> Task[Any] | None:
        self.left_out.append(early)
        return self.early.get(early.number)

    def give_way(self, id_: str, worker: int, admit: Callable[[], bool]) -> None:
        admit()


class Restored:
    """A fake `Restoring`, for tasks that can be read.

    Attributes:
        waiting: Tasks that wait for their functions, by row.
        withdrawn: Waiting tasks that were withdrawn.
        moved: Waiting tasks that were rescheduled.
        doubted: Rows of tasks that may have ended the last host.
        told: The tasks taken, and whether each was in doubt.
        kept: What is kept of each, by its number at the links.
    """

    def __init__(self, admitted: Admitted, where: Whereabouts) -> None:
        self.shelf: Shelf | None = None
        self.waiting: set[int] = set()
        self.withdrawn: list[int] = []
        self.moved: list[tuple[int, int]] = []
        self.doubted: set[int] = set()
        self.told: list[tuple[Row, bool]] = []
        self.kept: dict[int, Kept] = {}
        self._admitted = admitted
        self._where = where

    def take(
        self,
        row: Row,
        early: Mapping[str, Early],
        kept: Kept | None = None,
        doubted: bool = False,
    ) -> None:
        assert self.shelf is not None
        self.told.append((row, doubted))
        worker, number = self._admitted.admit(row.due, row.key, row.id, row)
        self._where.add(row.row, worker, number)
        self._where.horizon.keep(*row.position)
        self.kept[number] = kept = kept or Kept.of(row)
        self.shelf.left(row, kept, worker, number)

    def doubts(self, row: Row) -> bool:
        return row.row in self.doubted

    def waits(self, row: int) -> bool:
        return row in self.waiting

    def withdraw(self, row: int) -> None:
        self.withdrawn.append(row)

    def move(self, row: int, due: int) -> Row:
        self.moved.append((row, due))
        return row_of(row)


class Rig:
    """A shelf whose file is open once `start` has been called."""

    def __init__(self, timed: bool = True) -> None:
        self.loop = asyncio.get_running_loop()
        self.store, self.writer, self.group = TrickyStore(), HandWriter(), Group(0)
        self.where = Whereabouts(2)
        self.asking = Asking(self.store, self.writer)  # type: ignore[arg-type]
        self.failures: list[Exception] = []
        self.commits = Commits(
            *(self.store, self.writer, self.group, lambda: None, self.failures.append)  # type: ignore[arg-type]
        )
        self.commits.written = self.where.horizon.written
        self.lookups = Lookups(
            *(self.store, self.asking.ask, self.where, lambda: self.group.stamp),
            *(self.commits.soon, self.failures.append),
        )
        self.commits.until = self.lookups.until
        shipper = HostShipper(HostCatalog())
        self.functions = Functions(self.group)
        self.drafts = Drafts(shipper, self.functions, Notes(None, shipper, WorkerCatalog()))
        self.loop_thread = LoopThread("manager")
        self.loop_thread.enter(self.loop)
        self.admitted = Admitted(self.loop)
        self.restored = Restored(self.admitted, self.where)
        self.shelf = Shelf(
            *(timed, self.group, self.commits, self.where, self.lookups, self.drafts),
            *(self.wait_stored, self.loop_thread, self.new_due),
            partial(ShelfListing, self.store, self.asking.ask, self.where, self.drafts, timed),
        )
        self.restored.shelf = self.shelf

    def new_due(self, when: datetime | timedelta | None) -> int:
        assert isinstance(when, timedelta)
        return NOW + int(when.total_seconds()) * 10**9

    async def wait_stored(self, kept: Kept) -> None:
        await self.commits.wait(kept.stamp)

    def start(self, *rows: Row, reached: int = NOW) -> None:
        """Open the file, which has tasks; those due up to `reached` are in memory then."""
        self.store.write(Batch(functions=[NOTE], puts=rows))
        opening = self.store.open()
        self.group.next_row = opening.next_row
        self.where.store = f"{opening.identity:032x}"
        self.functions.read(opening.functions)
        self.commits.start(self.loop)
        restored: Any = self.restored
        admitted: Any = self.admitted
        self.shelf.open(self.loop, admitted, restored, opening.tasks)
        self.come(reached)

    def come(self, until: int) -> None:
        """Move the horizon to a time."""
        horizon = self.where.horizon
        begun = horizon.begin()
        page = self.store.read(horizon.reached, until, 1 << 16)
        reached: Position = page.reached
        found = horizon.take(page.rows, reached)
        for row, kept in found:
            self.restored.take(row, {}, kept)
        self.shelf.counter.take(len(found))
        horizon.expect(page.behind)
        horizon.end(begun)

    async def turn(self, count: int = 6) -> None:
        """Run some turns of the loop, and all jobs of the writer in each."""
        for _ in range(count):
            await asyncio.sleep(0)
            self.writer.work()
        await asyncio.sleep(0)

    def draft(self, value: Any = None, id_: str | None = None) -> Draft:
        function = registry.find("test.note")
        assert function is not None
        return Draft(Stored(function, wire.pack([value])), None, id_)

    def schedule(
        self, due: int, id_: str | None = None, replace: bool = False, value: Any = None
    ) -> Task[Any]:
        """Schedule a task behind the horizon, as the router does, which knows the ids at links."""
        known = None if id_ is None else self.known(id_)
        if known is not None and not replace:
            task = self.home(known).find(*known[1:])
            assert task is not None
            return task
        if known is not None:
            self.home(known).dispossess(*known[1:])
        sure = known is not None and (known[0] >= 0 or known[2] not in self.shelf.claims)
        return self.shelf.schedule(due, due, self.draft(value, id_), replace, sure)

    def known(self, id_: str) -> Address | None:
        return self.admitted.ids.get(id_) or self.shelf.address(id_)

    def home(self, address: Address) -> Shelf | Link:
        return self.shelf if address[0] < 0 else self.admitted.links[address[0]]

    def map(self, dues: int | list[int], *values: Any) -> UserBatch[Any]:
        outcomes = Outcomes(len(values), PLACE)
        outcomes.durable = True
        payloads = [wire.pack([value]) for value in values]
        self.shelf.schedule_many(outcomes, 0, dues, payloads, self.draft())
        return UserBatch(outcomes)

    def handle(self, row: int) -> Task[Any]:
        """Return a handle by a reference."""
        task = self.shelf.find(0, row)
        assert task is not None
        return task

    def file(self) -> dict[int, Row]:
        """Return the tasks in the file."""
        return {row.row: row for row in self.store.rows()}

    def dues(self) -> dict[int, int]:
        """Return the due times of the tasks in the file."""
        return {number: row.due for number, row in self.file().items()}

    async def list(self, **wanted: Any) -> list[int]:
        """Return the rows of a whole list of tasks."""
        with self.shelf.listing(Wanted(**wanted)) as listing:
            found: list[int] = []
            listed = asyncio.ensure_future(_read(listing, found))
            while not listed.done():
                await self.turn(1)
            await listed
        return found


async def _read(listing: ShelfListing, found: list[int]) -> None:
    async for infos in listing.infos():
        found += [info.ref.number for info in infos]
