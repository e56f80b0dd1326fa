from __future__ import annotations

from aioscheduler._processes.budget import NOT_HAD, RestartBudget


def test_a_number_of_restarts_in_a_period() -> None:
    budget = RestartBudget(2, 10.0)
    assert [budget.spend(now) for now in (0.0, 1.0, 2.0, 9.9)] == [True, True, False, False]
    assert budget.spend(10.0)  # the first was 10 s ago
    assert not budget.spend(10.5)


def test_ends_by_one_cause_count_once() -> None:
    budget = RestartBudget(2, 10.0)
    node, other = object(), object()
    assert all(budget.spend(0.0, node) for _ in range(8))
    assert all(budget.spend(1.0, other) for _ in range(8))
    assert budget.spend(2.0, node)  # already paid for
    assert not budget.spend(2.0)
    assert not budget.spend(2.0, object())


def test_a_cause_is_paid_for_once_a_period() -> None:
    budget = RestartBudget(1, 10.0)
    node = object()
    assert budget.spend(0.0, node)
    assert budget.spend(10.0, node)
    assert not budget.spend(10.0)


def test_causes_are_the_same_only_if_they_are_one_object() -> None:
    budget = RestartBudget(1, 10.0)
    assert budget.spend(0.0, [])
    assert not budget.spend(0.0, [])


def test_a_cause_that_cannot_be_paid_for_is_one_too_many_for_each() -> None:
    budget = RestartBudget(0, 10.0)
    node = object()
    assert not budget.spend(0.0, node)
    assert not budget.spend(0.0, node)


def test_a_process_that_could_not_be_obtained_costs_nothing() -> None:
    budget = RestartBudget(1, 10.0)
    assert all(budget.spend(0.0, NOT_HAD) for _ in range(50))
    assert budget.spend(0.0)
    assert budget.spend(0.0, NOT_HAD)
    assert not budget.spend(0.0)


def test_none_at_all() -> None:
    assert not RestartBudget(0, 1.0).spend(5.0)
