from __future__ import annotations

import pickle
import re
from typing import Any

import pytest

from aioscheduler import errors
from aioscheduler.errors import AioschedulerError, RemoteError, WorkerLost, describe_exit

CLASSES = [
    c for c in vars(errors).values() if isinstance(c, type) and c.__module__ == errors.__name__
]


def test_there_is_one_root_and_the_docstring_draws_the_tree() -> None:
    assert errors.__doc__ is not None
    for cls in CLASSES:
        assert issubclass(cls, AioschedulerError)
        assert cls.__name__ in errors.__doc__
        other = [base for base in cls.__bases__ if base not in (AioschedulerError, Exception)]
        for base in other:
            if base in CLASSES:  # it stands below that one
                above, below = (rf"^ .*─ {each.__name__}\b.*\n" for each in (base, cls))
                assert re.search(above + below, errors.__doc__, re.MULTILINE), cls
            else:
                assert f"{cls.__name__} ({base.__name__})" in errors.__doc__


@pytest.mark.parametrize(
    ("error", "attributes"),
    [
        (WorkerLost(2, -9, True), {"worker": 2, "exitcode": -9, "started": True}),
        (RemoteError("T", "x", "tb"), {"type_name": "T", "text": "x", "remote_traceback": "tb"}),
        (errors.RemoteTraceback("tb"), {"text": "tb"}),
        (errors.TooLate("work", 1.5, 1.0, 2), {"lateness": 1.5, "attempt": 2}),
        (errors.TaskLimitReached("full"), {"args": ("full",)}),
    ],
)
def test_they_can_be_pickled(error: Any, attributes: dict[str, Any]) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    for name, value in attributes.items():
        assert getattr(copy, name) == value


def test_a_lost_task_says_whether_it_may_be_scheduled_again() -> None:
    assert str(WorkerLost(0, -9, True)) == (
        "worker 0 was killed by SIGKILL; the task may have run in part; "
        "schedule it again only if that is safe"
    )
    assert "safe to schedule it again" in str(WorkerLost(0, 1, False))
    assert "status 3 (SystemExit: 3); the task may" in str(
        WorkerLost(0, 3, True, "", "SystemExit: 3")
    )


@pytest.mark.parametrize(
    ("exitcode", "words"),
    [
        (0, "exited with status 0"),
        (3, "exited with status 3"),
        (errors.EXIT_OF_BLOCKED, "was ended by its block_timeout"),
        (-11, "was killed by SIGSEGV"),
        (-200, "was killed by signal 200"),
        (None, "ended, its exit code is not known"),
    ],
)
def test_ways_to_end(exitcode: int | None, words: str) -> None:
    assert describe_exit(exitcode) == words
