"""References: what they name, and which ones are refused."""

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
