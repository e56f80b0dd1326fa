"""The horizon in random histories with a file that lags behind: each task comes once, in order.

A thread makes commits and reads in order, late; the loop puts, strikes and moves tasks, in memory
and in the file, takes pages in parts, and lets time pass. A crash loses what was not committed;
the tasks in memory are then read from the file again.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioscheduler._durable.horizon import Horizon
from aioscheduler._durable.records import LAST, Position, Row


class History:
    """One host after another, on one file."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.file: dict[int, Row] = {}
        self.now = 0
        self.next_row = 1
        self.most = self.random.choice((1, 2, 5, 50))
        self.cap = self.random.choice((1, 3, 20, 1000))
        self.begin()

    def begin(self) -> None:
        self.horizon: Horizon[str] = Horizon()
        self.alive = dict(self.file)  # as users know it
        self.memory: dict[int, Row] = {}
        self.group: dict[int, Row | None] = {}  # what is to be written next
        self.stamp = self.handed = 0
        self.thread: deque[Any] = deque()
        self.told: deque[Any] = deque()  # what the thread has done, for the loop
        self.page: tuple[list[Row], Position] | None = None
        self.is_reading = False
        self.begun = 0
        self.fed: list[Position] = []

    # ---- the loop

    def write(self, row: int, what: Row | None) -> None:
        self.stamp += 1
        self.group[row] = what

    def put(self) -> None:
        delay = self.random.choice((0, 0, 1, self.random.randrange(10), self.random.randrange(100)))
        row = Row(self.next_row, self.now + delay, 1, b"")
        self.next_row += 1
        self.alive[row.row] = row
        self.write(row.row, row)
        if self.horizon.is_near(row.due, row.row):
            self.memory[row.row] = row
            self.horizon.keep(row.due, row.row)
        else:
            self.horizon.put(row, "new", self.stamp)

    def strike(self) -> None:
        if self.alive:
            row = self.random.choice(list(self.alive))
            self.end(row)

    def end(self, row: int) -> None:
        del self.alive[row]
        self.write(row, None)
        if self.memory.pop(row, None) is None:
            self.horizon.strike(row, self.stamp)
        else:
            self.horizon.ended(row, self.stamp)

    def move(self) -> None:
        if not self.alive:
            return
        row = self.random.choice(list(self.alive))
        moved = self.alive[row]._replace(due=self.now + self.random.randrange(100))
        self.alive[row] = moved
        self.write(row, moved)
        if row in self.memory:
            self.memory[row] = moved
            self.horizon.keep(*moved.position)
        elif self.horizon.is_near(*moved.position):
            self.horizon.strike(row, self.stamp)  # what the file has of it is not to come
            self.memory[row] = moved
        else:
            self.horizon.put(moved, None, self.stamp)

    def hand_out(self) -> None:
        if self.group:
            self.thread.append(("commit", dict(self.group), self.stamp))
            self.group.clear()

    def look(self) -> None:
        due = self.now + 10
        if not self.is_reading and due > self.horizon.reached[0] and len(self.memory) < self.cap:
            self.is_reading = True
            self.begun = self.horizon.begin()
            self.thread.append(("read", self.horizon.reached, due))

    def feed(self, row: Row, more: str | None) -> None:
        assert row.row not in self.memory, f"{row} came twice"
        assert self.alive.get(row.row) == row, f"{row} came, and it is {self.alive.get(row.row)}"
        self.memory[row.row] = row
        self.fed.append(row.position)

    def take(self) -> None:
        """Take a part of a page."""
        if self.page is not None:
            rows, reached = self.page
            size = self.random.choice((1, 2, 1000))
            part, rest = rows[:size], rows[size:]
            for row, more in self.horizon.take(part, part[-1].position if rest else reached):
                self.feed(row, more)
            self.page = (rest, reached) if rest else None
            if not rest:
                self.horizon.end(self.begun)
                self.is_reading = False

    def hear(self) -> None:
        """Handle the first result of the thread that is still unhandled."""
        if self.told:
            what, *more = self.told.popleft()
            if what == "commit":
                self.horizon.written(*more)
            else:
                self.page = more[0], more[1]
                self.take()

    def run(self) -> None:
        ready = sorted(r.position for r in self.memory.values() if r.due <= self.now)
        for _, row in ready[: self.random.choice((1, 5, 100))]:
            self.end(row)

    # ---- the thread

    def work(self) -> None:
        if self.thread:
            what, *more = self.thread.popleft()
            if what == "commit":
                changes, stamp = more
                for row, state in changes.items():
                    if state is None:
                        self.file.pop(row, None)
                    else:
                        self.file[row] = state
                self.told.append(("commit", stamp))
            else:
                after, until = more
                last = until, LAST[1]
                behind = sorted(r.position for r in self.file.values() if after < r.position)
                rows = [self.file[row] for due, row in behind if due <= until][: self.most]
                reached = rows[-1].position if len(rows) == self.most else last
                self.told.append(("read", rows, reached))

    def crash(self) -> None:
        for _ in range(self.random.randrange(len(self.thread) + 1)):
            self.work()
        self.begin()

    # ---- all of it

    def step(self) -> None:
        deeds = (self.put, self.strike, self.move, self.hand_out, self.work, self.hear)
        chances = (40, 8, 8, 20, 20, 20)
        more = (self.take, self.look, self.run, self.pass_, self.crash)
        self.random.choices((*deeds, *more), (*chances, 15, 15, 10, 15, 0.5))[0]()

    def pass_(self) -> None:
        self.now += self.random.choice((0, 1, 5, 50))

    def settle(self) -> None:
        """Take and end all tasks that are left."""
        for _ in range(100_000):
            if not (self.alive or self.thread or self.told or self.group or self.page):
                break
            self.now += 50
            for deed in (self.look, self.hand_out, self.work, self.hear, self.take, self.run):
                deed()
        assert not self.alive, f"never came: {list(self.alive.values())[:5]}"
        assert not self.file


def hold(seed: int) -> None:
    history = History(seed)
    for _ in range(history.random.randint(20, 400)):
        history.step()
        held = history.memory.keys() & history.alive.keys()
        assert held == history.memory.keys()
        near = {r.row for r in history.alive.values() if r.position <= history.horizon.reached}
        assert near <= held, f"{near - held} are behind the horizon, and are not in memory"
    history.settle()
    assert history.horizon.count() == 0
    assert not history.horizon.ahead
    assert not history.horizon._unwritten


@pytest.mark.parametrize("first", range(0, 500, 250))
def test_random_histories(first: int) -> None:
    for seed in range(first, first + 250):
        hold(seed)


@pytest.mark.long
def test_twenty_thousand_random_histories() -> None:
    for seed in range(2_000, 22_000):
        hold(seed)


def drawn(*positions: Position) -> list[Row]:
    return [Row(row, due, 1, b"") for due, row in positions]


def taken(horizon: Horizon[str], rows: list[Row], reached: Position) -> list[Any]:
    return [(row.position, more) for row, more in horizon.take(rows, reached)]


def test_unwritten_tasks_come_in_order() -> None:
    horizon: Horizon[str] = Horizon()
    for stamp, row in enumerate(drawn((5, 2), (9, 3), (12, 4)), 1):
        horizon.put(row, f"its {row.row}", stamp)
    rows = drawn((5, 1), (9, 3))
    assert taken(horizon, rows, (10, 0)) == [((5, 1), None), ((5, 2), "its 2"), ((9, 3), "its 3")]
    assert [horizon.is_near(due, 9) for due in (9, 10, 12)] == [True, False, False]
    horizon.written(2)
    assert horizon.find(3) is None
    assert horizon.find(4) is not None


def test_changes_are_kept_while_a_page_is_taken() -> None:
    horizon: Horizon[str] = Horizon()
    horizon.strike(3, 1)
    horizon.written(1)
    begun = horizon.begin()
    horizon.strike(2, 7)
    horizon.written(7)
    assert horizon.find(3) is None
    assert taken(horizon, drawn((5, 1), (5, 2)), (10, 0)) == [((5, 1), None)]
    assert horizon.find(2) is not None
    horizon.end(begun)
    assert horizon.find(2) is None


def test_a_task_ended_ahead_of_the_horizon_is_not_read_again() -> None:
    horizon: Horizon[str] = Horizon()
    assert not horizon.is_near(0, 0)
    horizon.keep(5, 1)
    horizon.ended(1, 3)
    found = horizon.find(1)
    assert found is not None
    assert found.row is None


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 99)), unique_by=lambda p: p[1]))
def test_the_horizon_only_grows(positions: list[Position]) -> None:
    horizon: Horizon[str] = Horizon()
    for position in positions:
        before = horizon.reached
        horizon.take([], position)
        assert horizon.reached == max(before, position)
