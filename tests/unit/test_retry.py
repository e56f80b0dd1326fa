"""Which failures are retried, how often, and after which waits."""

from __future__ import annotations

import asyncio
import functools
import math
import pickle
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raising import ODD, NoCause, NoClass, NoText, RaisesIt

from aioscheduler import Retry, TooLate, WorkerLost
from aioscheduler._scheduling.clock import LATEST, SECOND
from aioscheduler.retry import wait_before_retry


def wait(retry: Retry, error: BaseException, failed: int = 1, rand: float = 0.0) -> float | None:
    """Return the wait in seconds."""
    found = wait_before_retry(retry, error, failed, lambda: rand)
    return None if found is None else found / SECOND


def yielding(error: BaseException) -> Any:
    yield True


# ---- construction


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"attempts": 0}, ValueError, "attempts counts the first one, so it is 1 or more, not 0"),
        ({"attempts": True}, TypeError, "attempts is an int, not bool"),
        ({"attempts": 2.0}, TypeError, "attempts is an int, not float"),
        ({"wait_initial": -1}, ValueError, "wait_initial must be finite, and 0 or more seconds"),
        ({"wait_max": math.inf}, ValueError, "wait_max must be finite"),
        ({"wait_max": None}, TypeError, "wait_max is seconds or a timedelta, not NoneType"),
        ({"wait_jitter": math.nan}, ValueError, "wait_jitter must be finite"),
        ({"wait_exp_base": 0.5}, ValueError, "wait_exp_base must be finite, and 1 or more, not 0"),
        ({"wait_exp_base": -1}, ValueError, "wait_exp_base must be finite, and 1 or more, not -1"),
        ({"wait_exp_base": math.nan}, ValueError, "finite, and 1 or more, not nan"),
        ({"wait_exp_base": 10**400}, ValueError, "finite, and 1 or more, not inf"),
        ({"wait_exp_base": True}, TypeError, "wait_exp_base is a number, not bool"),
        ({"wait_exp_base": "2"}, TypeError, "wait_exp_base is a number, not str"),
        ({"wait_exp_base": timedelta(2)}, TypeError, "wait_exp_base is a number, not timedelta"),
        ({"on": ()}, ValueError, "empty tuple"),
        ({"on": "OSError"}, TypeError, "on is an exception class, a tuple of them, or a function"),
        ({"on": int}, TypeError, "on is an exception class"),
        ({"on": (OSError, print)}, TypeError, "on is an exception class"),
        ({"on": [OSError]}, TypeError, r"on is an exception class.*; write \(A, B\) for several"),
        ({"on": lambda: True}, TypeError, "on is called with one argument, the exception: "),
        ({"on": lambda error, attempt: True}, TypeError, "missing a required argument: 'attempt'"),
        ({"on": yielding}, TypeError, "on must be a plain function"),
        ({"on": asyncio.sleep}, TypeError, "on must be a plain function"),
    ],
)
def test_what_cannot_mean_anything_is_refused(
    given: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Retry(**given)


def test_only_what_is_retried_goes_by_position() -> None:
    assert Retry(OSError).on is OSError
    with pytest.raises(TypeError):
        Retry(OSError, 3)  # type: ignore[misc]  # which of the numbers would that be?


def test_equal_ones_are_one_and_predicates_are_equal_to_themselves_alone() -> None:
    def first(error: Exception) -> bool:
        return True

    assert Retry(wait_max=timedelta(seconds=3)) == Retry(wait_max=3.0)
    assert len({Retry(), Retry(attempts=5), Retry((OSError,)), Retry((OSError,))}) == 2
    assert Retry(first) == Retry(first)
    assert Retry(functools.partial(first)) != Retry(functools.partial(first))
    assert Retry() != Retry(attempts=4)
    assert Retry() != 5


def test_whatever_can_be_called_with_a_failure_may_decide() -> None:
    class Deciding:
        def __call__(self, error: BaseException, *more: Any) -> bool:
            return True

    for on in (Deciding(), functools.partial(isinstance, 5), Deciding().__call__, id):
        assert Retry(on).on is on


def test_it_can_be_copied() -> None:
    copy = pickle.loads(pickle.dumps(Retry((OSError, ValueError), attempts=2, wait_initial=3)))
    assert copy == Retry((OSError, ValueError), attempts=2, wait_initial=3)


# ---- waits and notes


def test_waits_double_and_end_at_the_most() -> None:
    waits = [wait(Retry(attempts=99), OSError(), failed) for failed in range(1, 12)]
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert wait(Retry(wait_exp_base=1, wait_initial=7), OSError(), 3) == 7
    assert wait(Retry(wait_initial=9, wait_max=timedelta(seconds=4)), OSError()) == 4


def test_jitter_is_added_below_the_most() -> None:
    assert wait(Retry(), OSError(), rand=0.5) == 1.5
    assert wait(Retry(wait_jitter=10), OSError(), 2, rand=0.5) == 7
    assert wait(Retry(wait_max=1.25), OSError(), rand=0.5) == 1.25


@given(
    st.builds(
        Retry,
        attempts=st.just(1 << 70),
        wait_initial=st.floats(0, 1e308),
        wait_max=st.floats(0, 1e308),
        wait_exp_base=st.floats(1, 1e308),
        wait_jitter=st.floats(0, 1e308),
    ),
    st.integers(1, 1 << 69),
    st.floats(0, 1),
)
def test_no_wait_overflows(retry: Retry, failed: int, rand: float) -> None:
    found = wait_before_retry(retry, OSError(), failed, lambda: rand)
    assert found is not None
    assert 0 <= found <= LATEST
    assert found / SECOND <= max(float(retry.wait_max), 0) * (1 + 1e-9)  # type: ignore[arg-type]


def test_attempts_are_the_starts_that_failed() -> None:
    last = OSError("no route")
    assert wait(Retry(attempts=2), last, 1) == 1
    assert not hasattr(last, "__notes__")
    assert wait(Retry(attempts=2), last, 2) is None
    assert last.__notes__ == ["it had 2 attempts, of 2 at most"]
    assert wait(Retry(attempts=1), last) is None
    assert last.__notes__[1] == "it had 1 attempt, of 1 at most"


@pytest.mark.parametrize("on", [OSError, (KeyError, OSError)])
def test_classes_say_what_is_retried(on: Any) -> None:
    assert wait(Retry(on), ConnectionResetError()) == 1
    other = ValueError()
    assert wait(Retry(on), other) is None
    assert other.__notes__ == ["it had 1 attempt, of 5 at most"]


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (True, 1),
        (0, 0),
        (1, 1),
        (1000.5, 1000.5),
        (timedelta(hours=1), 3600),
        (1e300, LATEST / SECOND),
    ],
)
def test_a_predicate_says_yes_or_how_long(answer: Any, seconds: float) -> None:
    assert wait(Retry(lambda error: answer), OSError()) == seconds  # type: ignore[arg-type, return-value]


def test_a_predicate_says_no() -> None:
    refused = OSError()
    assert wait(Retry(lambda error: False), refused) is None
    assert refused.__notes__ == ["it had 1 attempt, of 5 at most"]


def exit_in_predicate(error: BaseException) -> bool:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("predicate", "why"),
    [
        (
            lambda error: None,
            "TypeError: its answer, if not True or False, is seconds or a timedelta",
        ),
        (lambda error: "yes", "TypeError: its answer"),
        (
            lambda error: -1,
            "ValueError: its answer, if not True or False, must be finite, and 0 or",
        ),
        (lambda error: math.nan, "ValueError: its answer"),
        (
            lambda error: error.response,
            "AttributeError: 'OSError' object has no attribute 'response'",
        ),
        (exit_in_predicate, "SystemExit: 3"),
    ],
)
def test_a_predicate_without_an_answer_is_noted(predicate: Any, why: str) -> None:
    error = OSError()
    assert wait(Retry(predicate), error) is None
    first, second = error.__notes__
    assert first.startswith(f"not retried, as its predicate gave no answer: {why}")
    assert second == "it had 1 attempt, of 5 at most"


@pytest.mark.parametrize("odd", ODD, ids=["no cause", "no text", "no class"])
def test_whatever_is_raised_there_is_an_answer(odd: type[Exception]) -> None:
    raised = ValueError("v")
    assert wait(Retry(RaisesIt(odd)), raised) is None
    why = {
        NoCause: "NoCause: on purpose",
        NoText: "NoText: it cannot be read",
        NoClass: "OddError: no subclasses",  # Python reads it where it is raised
    }
    assert raised.__notes__ == [
        f"not retried, as its predicate gave no answer: {why[odd]}",
        "it had 1 attempt, of 5 at most",
    ]
    for attempts in (1, 2):  # a class with its own check, and one that raises
        for on in (odd, (odd, ValueError)):
            found = wait(Retry(on, attempts=attempts), ValueError())
            asked = odd is not NoClass and isinstance(on, tuple) and attempts == 2
            assert found == (1 if asked else None)
        assert wait(Retry(Exception, attempts=attempts), odd()) == (1 if attempts == 2 else None)
        assert wait(Retry(RaisesIt(odd), attempts=attempts), odd()) is None


def test_of_what_a_predicate_raises_there_is_one_line_that_is_not_a_note_of_it() -> None:
    def give_no_answer(error: BaseException) -> bool:
        reason = KeyError("the\nkey" + "!" * 1000)
        reason.add_note("a note")
        raise reason

    def say_nothing(error: BaseException) -> bool:
        raise LookupError

    for predicate, why in (
        (give_no_answer, "KeyError: 'the\\nkey!!!"),
        (say_nothing, "LookupError"),
    ):
        error = OSError()
        assert wait(Retry(predicate), error) is None
        line = error.__notes__[0]
        assert line.startswith(f"not retried, as its predicate gave no answer: {why}")
        assert len(line) < 300
    assert line.endswith(why)


@pytest.mark.parametrize(
    "error",
    [
        asyncio.CancelledError(),
        SystemExit(1),
        KeyboardInterrupt(),
        GeneratorExit(),
        WorkerLost(0, -9, True),
        TooLate("work", 2.0, 1.0, 1),
    ],
)
def test_some_are_never_retried(error: BaseException) -> None:
    assert wait(Retry(BaseException), error) is None
    assert wait(Retry(lambda error: True), error) is None
    assert not hasattr(error, "__notes__")


def test_numbers_of_attempts_too_long_to_print_do_no_harm() -> None:
    assert wait(Retry(OSError, attempts=10**5000), KeyError()) is None


def test_a_failure_that_takes_no_note_is_itself() -> None:
    class Sealed(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

        def add_note(self, note: str) -> None:
            raise AttributeError("add_note")

    assert wait(Retry(attempts=1), Sealed()) is None
