"""The placement policy, defended by a score: a simulation of workers with uneven tasks.

Tasks of very different lengths arrive, a part of them with keys; each worker works off what it
has at its own speed. The score is how uneven the finished work is, and how long the last queue
is at the end. The policy has to stay near the best that could be, and beat the two that one
would write first: round robin, and random.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest

from aioscheduler._routing.placement import Placement

LAYOUT = (3, 3, 2, 2)


def simulate(
    choose: Callable[[Placement, int | None], int], *, queues: bool, keyed: float, seed: int
) -> float:
    """Return the time until all tasks are done, over the time if no scheduler ever idled."""
    generator = random.Random(seed)
    placement = Placement(LAYOUT, not queues)
    servers = len(placement.worker_of) if queues else len(LAYOUT)
    free_at = [0.0] * servers
    ends: list[tuple[float, int]] = []
    work, now = 0.0, 0.0
    for _ in range(4000):
        now += generator.expovariate(servers / 1.1)
        while ends and ends[0][0] <= now:
            place = heapq.heappop(ends)[1]
            worker, scheduler = placement.worker_of[place], placement.scheduler_of[place]
            placement.count_waiting(worker, scheduler, -1)
            placement.count_ended(worker, scheduler, 1)
        key = generator.randrange(500) if generator.random() < keyed else None
        place = choose(placement, key)
        placement.added(place)
        server = place if queues else placement.worker_of[place]
        length = generator.choice([0.1, 0.1, 0.1, 0.5, 4.2])
        work += length
        free_at[server] = max(free_at[server], now) + length
        heapq.heappush(ends, (free_at[server], place))
    return max(free_at) / max(now, work / servers)


def policy(placement: Placement, key: int | None) -> int:
    return placement.choose(key)


def round_robin() -> Callable[[Placement, int | None], int]:
    turn = iter(range(10**9))

    def choose(placement: Placement, key: int | None) -> int:
        return placement.place_of_key(key) if key is not None else next(turn) % 10

    return choose


def at_random() -> Callable[[Placement, int | None], int]:
    generator = random.Random(0)

    def choose(placement: Placement, key: int | None) -> int:
        return placement.place_of_key(key) if key is not None else generator.randrange(10)

    return choose


@pytest.mark.parametrize("queues", [False, True], ids=["timed", "queues"])
@pytest.mark.parametrize("keyed", [0.0, 0.3])
def test_uneven_tasks_are_spread_better_than_by_turns(queues: bool, keyed: float) -> None:
    seeds = range(8)
    ours = [simulate(policy, queues=queues, keyed=keyed, seed=s) for s in seeds]
    turns = [simulate(round_robin(), queues=queues, keyed=keyed, seed=s) for s in seeds]
    chance = [simulate(at_random(), queues=queues, keyed=keyed, seed=s) for s in seeds]
    assert sum(ours) / len(ours) < 1.06
    assert sum(ours) <= sum(turns)
    assert sum(ours) < sum(chance)


def test_keys_alone_spread_evenly() -> None:
    placement = Placement(LAYOUT, True)
    for key in range(20_000):
        placement.added(placement.choose(f"user {key}"))
    assert min(placement.loads) > 0.9 * max(placement.loads)


def test_loads_stay_level_and_keys_are_made_up_for() -> None:
    placement = Placement((2, 2), True)
    for n in range(1000):
        placement.added(placement.choose("one key" if n % 3 == 0 else None))
    worker_loads = [sum(placement.loads[:2]), sum(placement.loads[2:])]
    assert abs(worker_loads[0] - worker_loads[1]) <= 2
