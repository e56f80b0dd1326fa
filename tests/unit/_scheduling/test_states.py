"""The table of a task's moves, which is also the one that users see."""

from __future__ import annotations

import aioscheduler
from aioscheduler import task
from aioscheduler._scheduling.states import ENDED, MOVES, State


def test_the_table_leads_from_the_beginning_to_the_ends() -> None:
    assert set(MOVES) == set(State)
    reached = {State.PENDING}
    for _ in State:
        reached |= {after for state in reached for after in MOVES[state]}
    assert reached == set(State)
    ends = {State.FINISHED, State.FAILED, State.CANCELLED, State.LOST, State.KEPT}
    assert ends == ENDED


def test_what_has_not_run_cannot_fail_and_what_died_with_its_worker_may_run_again() -> None:
    assert State.FAILED not in MOVES[State.PENDING]
    assert State.PENDING in MOVES[State.RUNNING]


def test_users_find_it_where_the_handle_is() -> None:
    assert aioscheduler.State is task.State is State
    assert (task.MOVES, task.ENDED) == (MOVES, ENDED)
