"""References: what they address, and which are refused."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from aioscheduler import TaskRef, UnknownTask
from aioscheduler.refs import check_ref

SCHEDULERS = {(0, 0), (0, 1), (1, 0)}


def test_a_reference_is_plain_data() -> None:
    ref = TaskRef("ab", 1, 0, 7)
    assert str(ref) == "ab/1/0/7"
    assert pickle.loads(pickle.dumps(ref)) == ref
    assert len({ref, TaskRef("ab", 1, 0, 7)}) == 1
    check_ref(ref, "ab", SCHEDULERS)


@pytest.mark.parametrize(
    ("ref", "error", "message"),
    [
        (("ab", 1, 0, 7), TypeError, "a TaskRef is needed, not tuple"),
        (TaskRef("cd", 1, 0, 7), UnknownTask, "cd/1/0/7 is a task of another manager"),
        (TaskRef("ab", 1, 1, 7), UnknownTask, "ab/1/1/7 is damaged"),
        (TaskRef("ab", 0, 0, -1), UnknownTask, "damaged"),
        (TaskRef("ab", 0, 0, 1 << 64), UnknownTask, "damaged"),
        (TaskRef("ab", 0, 0, True), UnknownTask, "damaged"),
    ],
)
def test_what_names_no_scheduler_of_the_manager_is_refused(
    ref: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_ref(ref, "ab", SCHEDULERS)


STORE = "0123456789abcdef" * 2


def test_a_reference_of_a_durable_task_is_plain_data_as_well() -> None:
    ref = TaskRef(STORE, -1, -1, 7)
    assert ref.is_durable
    assert not TaskRef("ab", 1, 0, 7).is_durable
    assert str(ref) == "01234567/row 7"
    assert pickle.loads(pickle.dumps(ref)) == ref
    check_ref(ref, "ab", SCHEDULERS, STORE)
    check_ref(TaskRef("ab", 1, 0, 7), "ab", SCHEDULERS, STORE)


@pytest.mark.parametrize(
    ("ref", "store", "message"),
    [
        (TaskRef(STORE, -1, -1, 7), "", "01234567/row 7 is a task of another store; ask its"),
        (TaskRef(STORE, -1, -1, 7), "f" * 32, "is a task of another store"),
        (TaskRef("ab", -1, -1, 7), STORE, "is damaged"),
        (TaskRef(STORE, -1, 0, 7), STORE, "another store"),
        (TaskRef(STORE, 0, -1, 7), STORE, "another manager"),
        (TaskRef(STORE, -1, -1, True), STORE, "another store"),
        (TaskRef("", -1, -1, 7), "", "is a task of another store"),
    ],
)
def test_what_names_no_task_of_the_store_is_refused(ref: TaskRef, store: str, message: str) -> None:
    with pytest.raises(UnknownTask, match=message):
        check_ref(ref, "ab", SCHEDULERS, store)
