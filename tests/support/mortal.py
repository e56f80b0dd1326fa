"""Hosts of durable repeats that die at any commit, one after another on one store.

What a host does after its death is not written, and what its tasks do then is not noted, as with a
host that really dies.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from aioscheduler import Every, ManagerClosed, Repeat, StoreError, current_due, durable
from aioscheduler._durable.group import MOST_BYTES
from aioscheduler._durable.records import Batch, Opening, StoreGone
from aioscheduler._durable.sqlite import SQLiteStore
from aioscheduler._scheduling.clock import SECOND, to_ns
from aioscheduler.testing import FakeClock, FakeManager

START = datetime(2030, 1, 1, tzinfo=UTC)
WORLDS: list[World] = []
"""The host that is alive, for its tasks, which are in the same process."""


@durable("mortal.mark")
async def mark(id_: str, holds: float) -> None:
    await WORLDS[-1].mark(id_, holds)


@durable("mortal.mark_once", on_loss="fail")
async def mark_once(id_: str, holds: float) -> None:
    await WORLDS[-1].mark(id_, holds)


class MortalStore(SQLiteStore):
    """A store in memory whose host may die at any commit, before or after it.

    Attributes:
        cut: Whether the host is dead.
        deadly: The probability of that.
    """

    def __init__(self, chance: random.Random) -> None:
        super().__init__(":memory:")
        self.cut = False
        self.deadly = 0.0
        self._chance = chance

    def open(self) -> Opening:
        self.cut = False
        return super().open()

    def commit(self, batch: Batch) -> None:
        self.die_maybe()
        super().commit(batch)
        self.die_maybe()

    def die_maybe(self) -> None:
        self.cut = self.cut or self._chance.random() < self.deadly
        if self.cut:
            raise StoreGone("the host is dead")

    def close(self, clean: bool) -> None:
        super().close(clean and not self.cut)


@dataclass
class Asked:
    """A repeat and its runs.

    Attributes:
        first: Its first nominal time.
        starts: The starts of runs, by nominal time, each with the number of the host.
    """

    id: str
    step: float
    overlap: Any
    missed: Any
    jitter: float
    once: bool
    holds: float
    first: int = 0
    starts: dict[int, list[int]] = field(default_factory=dict)

    def ask(self, manager: FakeManager) -> Repeat:
        function = mark_once if self.once else mark
        return manager.repeat(
            function(self.id, self.holds),
            Every(self.step),
            id=self.id,
            overlap=self.overlap,
            missed=self.missed,
            jitter=self.jitter,
        )


class World:
    """Everything that a seed decides.

    Attributes:
        faults: What went wrong, in words.
        deaths: How many hosts have died.
    """

    def __init__(self, seed: int) -> None:
        self.chance = chance = random.Random(seed)
        self.clock = FakeClock(START)
        self.store = MortalStore(chance)
        self.faults: list[str] = []
        self.deaths = 0
        self.host = 0
        self.workers = chance.choice((0, 0, 1, 2))
        self.gates: set[asyncio.Event] = set()
        self.active: Counter[str] = Counter()  # runs that wait at a gate
        self.asked = {
            str(n): Asked(
                str(n),
                chance.choice((1, 7, 30)),
                chance.choice(("skip", "queue", "allow")),
                chance.choice(("once", "all", "skip")),
                chance.choice((0, 0, 3, 50)),
                chance.random() < 0.2,
                chance.choice((0, 0, 0.5)),
            )
            for n in range(chance.randint(1, 4))
        }

    async def mark(self, id_: str, holds: float) -> None:
        """Note a start, and perhaps wait until the gate is opened."""
        due = current_due()
        assert due is not None
        if self.store.cut:
            return
        asked, nominal = self.asked[id_], to_ns(due, 0)
        if nominal > self.clock():
            self.faults.append(f"{id_}: early, {nominal - self.clock()} ns")
        if (nominal - asked.first) % int(asked.step * SECOND):
            self.faults.append(f"{id_}: {due} is none of its times")
        starts = asked.starts.setdefault(nominal, [])
        if self.host in starts or (starts and asked.once):
            self.faults.append(f"{id_}: {due} was begun in {starts}, and again in {self.host}")
        starts.append(self.host)
        if self.active[id_] and asked.overlap != "allow":
            self.faults.append(f"{id_}: {due} was begun while another one ran")
        if holds and self.chance.random() < holds:
            gate = asyncio.Event()
            self.gates.add(gate)
            self.active[id_] += 1
            await gate.wait()
            self.active[id_] -= 1

    def open_gates(self) -> None:
        for gate in self.gates:
            gate.set()
        self.gates.clear()

    # ---- hosts

    async def run(self) -> None:
        """Live through the story, and judge it."""
        WORLDS.append(self)
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        try:
            for _ in range(self.chance.randint(3, 12)):
                self.host += 1
                self.store.deadly = self.chance.choice((0, 0.02, 0.2))
                await self._live(last=False)
                self.clock._now += int(self.chance.choice((0, 3, 15, 200)) * SECOND)
            self.host += 1
            self.store.deadly = 0
            await self._live(last=True)
        finally:
            WORLDS.pop()

    async def _live(self, last: bool) -> None:
        manager = self.clock.manager(2, workers=self.workers, store=self.store)
        keeper = manager._router.keeper
        assert keeper is not None
        most_bytes = self.chance.choice((100, 1000, MOST_BYTES))  # small ones may be lost in part
        keeper.group.take = partial(keeper.group.take, most_bytes)  # type: ignore[method-assign]
        try:
            manager.start()
            if self.chance.random() < 0.3:
                self._ask(manager)
            await manager.ready()
            self._ask(manager)
            self._note_firsts(manager)
            for _ in range(self.chance.randint(1, 12)):
                await self._do(manager)
            if last:
                await self._drain(manager)
            elif self.chance.random() < 0.5:
                self.store.cut = True
        except (StoreError, ManagerClosed):
            if last:
                raise
        self.deaths += self.store.cut
        await manager.close(0)
        self.gates.clear()
        self.active.clear()

    def _ask(self, manager: FakeManager) -> None:
        """Declare some repeats again, as a program does at its start."""
        known = {repeat.id for repeat in manager.repeats()}
        for asked in self.asked.values():
            if asked.id in known and self.chance.random() < 0.5:
                continue
            asked.ask(manager)

    def _note_firsts(self, manager: FakeManager) -> None:
        """Note the beginnings of repeats that have not begun yet."""
        for repeat in manager.repeats():
            if not (repeat.ran or repeat.skipped):
                assert repeat._progress.next is not None
                self.asked[repeat.id].first = repeat._progress.next

    async def _do(self, manager: FakeManager) -> None:
        chance = self.chance
        deed = chance.choice(("advance", "advance", "advance", "open", "pause", "resume", "sync"))
        repeats = manager.repeats()
        if deed == "advance":
            await self.clock.advance(chance.choice((0.1, 2, 40)) * chance.random())
        elif deed == "open":
            self.open_gates()
            await self.clock.advance(0)
        elif deed == "sync":
            await manager.sync()
        elif repeats:
            repeat = chance.choice(repeats)
            await (repeat.pause() if deed == "pause" else repeat.resume())

    async def _drain(self, manager: FakeManager) -> None:
        """Let all runs end, and check each nominal time."""
        for repeat in manager.repeats():
            await repeat.resume()
        await self.clock.advance(self.chance.choice((0, 40)))
        for repeat in manager.repeats():
            await repeat.pause()  # else it never ends
        for _ in range(200):
            if not manager._router.placement.all_loads:
                break
            self.open_gates()
            await self.clock.advance(1)
        else:
            self.faults.append("it does not come to an end")
        letters = [letter.id or "" async for letter in manager.dead_letters()]
        for repeat in manager.repeats():
            self._judge(repeat, letters)
        for repeat in manager.repeats():
            await repeat.cancel()

    def _judge(self, repeat: Repeat, letters: list[str]) -> None:
        asked = self.asked[repeat.id]
        entered = set(asked.starts)
        for letter in letters:
            id_, _, nominal = letter.removeprefix("↻").rpartition(" ")
            if id_ == repeat.id:
                entered.add(to_ns(datetime.fromisoformat(nominal), 0))
        if len(entered) != repeat.ran:
            self.faults.append(f"{repeat} has had {repeat.ran} runs, and {len(entered)} are known")
        assert repeat._progress.next is not None
        passed = (repeat._progress.next - asked.first) // int(asked.step * SECOND)
        if repeat.ran + repeat.skipped != passed:
            self.faults.append(
                f"{repeat}: of {passed} times {repeat.ran} were run, {repeat.skipped} skipped"
            )
