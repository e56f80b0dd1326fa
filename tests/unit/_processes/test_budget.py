from __future__ import annotations

from aioscheduler._processes.budget import RestartBudget


def test_so_many_in_so_many_seconds() -> None:
    budget = RestartBudget(2, 10.0)
    assert [budget.spend(now) for now in (0.0, 1.0, 2.0, 9.9)] == [True, True, False, False]
    assert budget.spend(10.0)  # the first is 10 s ago
    assert not budget.spend(10.5)


def test_none_at_all() -> None:
    assert not RestartBudget(0, 1.0).spend(5.0)
