"""A worker under a host that schedules, cancels, withdraws, sends again and confirms at random.

The host here is a model of what a ledger knows of each task. Every frame of the worker must be
one that the model allows, and the host must know of every start in time.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest
from acting import HOSTS, act, ask_host
from solo import Make, Rig
from turning import turns

from aioscheduler import Retry, current_attempt
from aioscheduler._scheduling.clock import SECOND
from aioscheduler._scheduling.order import Order
from aioscheduler._transport import wire
from aioscheduler._transport.wire import ALONE, CANCELLED, IN_BLOB, Kind, More
from aioscheduler.options import Options


class Host:
    """The true state of each task, and what may be done with it."""

    def __init__(self, rig: Rig, order: Order, seed: int, confirmed: bool) -> None:
        self.rig = rig
        self.order = order
        self.random = random.Random(seed)
        self.all_confirmed = confirmed
        self.calls: list[tuple[int, int, Any]] = []  # scheduler, function, payload
        self.dues: list[int] = []
        self.attempts: list[int] = []
        self.states: list[str] = []
        self.confirmed: list[int] = []
        self.cancelled: set[int] = set()
        self.withdrawn: set[int] = set()
        self.blobs: list[int] = []  # not sent yet
        self.announced: list[list[int]] = []
        self.entered: set[int] = set()  # of them, as sent to the worker
        self.running: list[int] = []
        self.faults: list[BaseException] = []
        self.options = rig.shipper.take_options(Options(retry=Retry(ask_host, attempts=4)))

    def answer(self) -> bool | float:
        return self.random.choice((False, 0, 1))

    def began(self, number: int) -> None:
        self.hear()
        assert self.states[number] == "started"
        assert self.rig.now >= self.dues[number]
        assert current_attempt() == self.attempts[number]
        if self.confirmed[number]:
            announced = {n for n, slice_ in enumerate(self.announced) if number in slice_}
            assert announced
            assert announced <= self.entered
        self.running.append(number)
        if self.order is not Order.TIMED:
            schedulers = [self.calls[other][0] for other in self.running]
            assert len(schedulers) == len(set(schedulers))

    def hear(self) -> None:
        for kind, *fields in self.rig.take():
            if kind in (Kind.ANNOUNCED, Kind.PROPOSED):
                assert {self.states[n] for n in fields[1]} == {"pending"}
                for n in fields[1]:
                    self.states[n] = "started"
                if kind == Kind.PROPOSED:
                    self.announced.append(fields[1])
                    assert len(fields[1]) == 1 or ALONE not in self.wants(fields[1])
                elif kind == Kind.ANNOUNCED:
                    assert not any(self.wants(fields[1]))
            elif kind == Kind.ENDED:
                for n in fields[1]:
                    self.ended(n, fields[2])
            elif kind == Kind.RETRY:
                for n in fields[1]:
                    assert self.states[n] == "started"
                    self.states[n] = "gone" if self.order is Order.TIMED else "pending"
                    self.attempts[n] += 1

    def wants(self, numbers: list[int]) -> list[int]:
        """What each of these tasks waits for in its current attempt."""
        return [min(self.confirmed[n], 1 if self.attempts[n] > 1 else ALONE) for n in numbers]

    def ended(self, n: int, ending: int) -> None:
        if ending != CANCELLED:
            assert self.states[n] == "started"
        elif self.states[n] == "pending":
            assert n in self.cancelled | self.withdrawn
        else:
            assert n in self.cancelled
        came_back = self.states[n] == "pending" and n not in self.cancelled
        self.states[n] = "withdrawn" if came_back else "ended"
        self.withdrawn.discard(n)

    # ---- what the host does

    def schedule(self) -> None:
        number = len(self.calls)
        padding = bytes(self.random.choice((0, 0, 0, 40_000)))
        coro = act(padding, self.random.choice((0, 0, 1, 3)), self.random.random() < 0.4)
        function, payload, _ = self.rig.shipper.take(coro)
        self.rig.tell_definitions()
        scheduler = self.random.randrange(len(self.rig.begun))
        self.calls.append((scheduler, function, payload))
        self.dues.append(0)
        self.attempts.append(1)
        self.states.append("")
        wants = self.random.choice((1, ALONE)) if self.random.random() < 0.2 else 0
        self.confirmed.append(wants or int(self.all_confirmed))
        self.send(number)

    def send(self, number: int) -> None:
        scheduler, function, payload = self.calls[number]
        if self.order is Order.TIMED:
            later = self.random.choice((0, 0, 1, 2)) * SECOND
            self.dues[number] = self.random.choice((self.dues[number], self.rig.now + later))
        large = isinstance(payload, bytes) and len(payload) > 1000
        if large:
            self.blobs.append(number)
        attempt = self.attempts[number]
        (confirmed,) = self.wants([number])
        more = More(self.options, None, attempt, confirmed, attempt - 1)
        row = [IN_BLOB if large else payload]
        self.states[number] = "pending"
        due = self.dues[number]
        self.rig.send(
            Kind.SCHEDULE, [number], scheduler, due, function, [wire.make_record(more)], row
        )

    def send_blob(self) -> None:
        if self.blobs:
            number = self.blobs.pop(self.random.randrange(len(self.blobs)))
            self.rig.pipe.receive([Kind.BLOB, number, self.calls[number][2]])

    def some(self, *states: str) -> list[int]:
        self.hear()
        found = [n for n, state in enumerate(self.states) if state in states]
        return self.random.sample(found, min(len(found), self.random.randint(1, 3)))

    def cancel(self) -> None:
        for n in self.some("pending", "started"):
            self.cancelled.add(n)
            self.rig.send(Kind.CANCEL, self.calls[n][0], [n])

    def withdraw(self) -> None:
        for n in self.some("pending"):
            if n not in self.cancelled:
                self.withdrawn.add(n)
                self.rig.send(Kind.WITHDRAW, self.calls[n][0], [n])

    def give_again(self) -> None:
        for n in self.some("gone", "withdrawn"):
            if n not in self.blobs and n not in self.cancelled:
                self.send(n)

    def confirm(self) -> None:
        self.hear()
        waiting = [n for n in range(len(self.announced)) if n not in self.entered]
        self.enter(self.random.sample(waiting, self.random.randint(0, len(waiting))))

    def enter(self, indices: Iterable[int]) -> None:
        new = [index for index in indices if index not in self.entered]
        self.entered.update(new)
        self.rig.send(Kind.CONFIRM, new)

    async def live(self) -> None:
        deeds = (self.schedule, self.send_blob, self.cancel, self.withdraw, self.give_again)
        for _ in range(120):
            self.random.choices((*deeds, self.confirm), (6, 2, 1, 2, 3, 3))[0]()
            if self.random.random() < 0.3:
                await turns(self.random.randint(1, 6))
            if self.random.random() < 0.1:
                await self.rig.pass_(self.random.choice((0.5, 1)))
        for _ in range(300):  # and now let all of them end
            self.send_blob()
            self.give_again()
            self.enter(range(len(self.announced)))
            await self.rig.pass_(1)
        self.hear()


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("seed", range(12))
async def test_every_frame_is_one_that_the_host_can_accept(
    make: Make, order: Order, seed: int
) -> None:
    rig = make(order, (2,) if order is Order.TIMED else (1,), confirmed=seed % 3 == 0)
    await rig.start()
    rig.take()
    HOSTS.append(Host(rig, order, seed, seed % 3 == 0))
    try:
        await HOSTS[-1].live()
        host = HOSTS.pop()
    finally:
        HOSTS.clear()
    assert host.faults == []
    assert {*host.states} == {"ended"} or host.cancelled >= {
        n for n, state in enumerate(host.states) if state != "ended"
    }
    announcer = rig.worker._announcer
    assert not (announcer._expected or announcer._some or announcer._late or announcer._proposed)
    assert announcer._alone == 0
    for engine in rig.worker._engines:
        assert (engine.pending, engine.running, len(engine._queue)) == (0, {}, 0)
