"""Host and workers in one thread under a seed; see `tests/support/simulate.py`."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import simulate


def firsts(end: int, step: int, short: int) -> list[Any]:
    """Return the first seeds; those from `short` on are for long runs."""
    return [
        pytest.param(first, marks=() if first < short else pytest.mark.long)
        for first in range(0, end, step)
    ]


@pytest.mark.parametrize("first", firsts(300, 25, 100))
def test_every_seed_holds(first: int) -> None:
    faults = {seed: simulate.simulate(seed) for seed in range(first, first + 25)}
    gc.collect()
    assert {seed: found for seed, found in faults.items() if found} == {}


@pytest.mark.parametrize("first", firsts(100, 10, 40))
def test_every_seed_of_hosts_on_a_store_holds(first: int) -> None:
    faults = {seed: simulate.simulate(seed, hosts=True) for seed in range(first, first + 10)}
    gc.collect()
    assert {seed: found for seed, found in faults.items() if found} == {}


@pytest.mark.parametrize("hosts", [False, True])
def test_a_seed_replays_exactly(hosts: bool, capsys: pytest.CaptureFixture[str]) -> None:
    stories = []
    for _ in range(2):
        simulate.simulate(7, trace=True, hosts=hosts)
        stories.append([line.rsplit(" ", 1)[0] for line in capsys.readouterr().out.splitlines()])
    assert stories[0] == stories[1]
    assert len(stories[0]) > 20


def test_a_broken_promise_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation must be able to fail: a ledger that forgets to hand over loses tasks."""
    from aioscheduler._transport.ledger import Ledger

    monkeypatch.setattr(Ledger, "replay", lambda self: iter(()))
    assert any(simulate.simulate(seed) for seed in range(20))


def test_a_store_that_loses_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """So must that of hosts: a host that starts with an empty file has lost its tasks."""
    from aioscheduler._durable.sqlite import SQLiteStore

    monkeypatch.setattr(SQLiteStore, "read", lambda self: iter(()))
    assert any(simulate.simulate(seed, hosts=True) for seed in range(5))
