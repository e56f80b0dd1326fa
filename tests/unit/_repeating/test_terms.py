"""The arguments of a repeat."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aioscheduler._repeating.terms import Missed, Overlap, read_terms
from aioscheduler._scheduling.clock import LATEST, SECOND
from aioscheduler.rules import Cron, Every


class Own:
    """A user's rule."""

    def next(self, after: datetime) -> datetime | None:
        return None

    def __str__(self) -> str:
        return "own"


class Textless:
    def next(self, after: datetime) -> datetime | None:
        return None


class Awaited(Own):
    async def next(self, after: datetime) -> None:  # type: ignore[override]
        pass


def test_arguments_are_kept() -> None:
    rule = Cron("0 9 * * *", "Europe/Berlin")
    terms = read_terms(
        rule,
        missed="all",
        overlap="queue",
        jitter=timedelta(seconds=1.5),
        until=datetime(1970, 1, 1, 0, 1, tzinfo=UTC),
        times=3,
    )
    assert (terms.rule, terms.text) == (rule, str(rule))
    assert (terms.missed, terms.overlap) == (Missed.ALL, Overlap.QUEUE)
    assert (terms.jitter, terms.until, terms.times) == (1_500_000_000, 60 * SECOND, 3)


def test_defaults() -> None:
    terms = read_terms(Own())
    assert (terms.missed, terms.overlap, terms.text) == (Missed.ONCE, Overlap.SKIP, "own")
    assert (terms.jitter, terms.until, terms.times) == (0, None, None)
    assert read_terms(Own(), jitter=1e30).jitter == LATEST


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"missed": "never"}, ValueError, "missed is one of 'once', 'all', 'skip', not 'never'"),
        ({"missed": None}, TypeError, "missed is a str, not NoneType"),
        ({"overlap": "once"}, ValueError, "overlap is one of 'skip', 'queue', 'allow'"),
        ({"overlap": True}, TypeError, "overlap is a str, not bool"),
        ({"jitter": -1}, ValueError, "jitter must be finite, and 0 or more"),
        ({"jitter": math.nan}, ValueError, "jitter must be finite"),
        ({"jitter": "1"}, TypeError, "jitter is seconds or a timedelta"),
        ({"until": datetime(2030, 1, 1)}, ValueError, "until is naive"),
        ({"until": timedelta(1)}, TypeError, "until is a datetime, not timedelta"),
        ({"times": 0}, ValueError, "times is 1 or more, not 0"),
        ({"times": 1.0}, TypeError, "times is an int, not float"),
        ({"times": True}, TypeError, "times is an int, not bool"),
    ],
)
def test_invalid_arguments_are_refused(
    given: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        read_terms(Every(1), **given)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (timedelta(1), r"a rule is Every\(...\), Cron\(...\), or an object with next\(after\)"),
        ("0 9 * * *", "a rule is Every"),
        (Every, "a rule is Every.* not <class"),
        (iter(()), "a rule is Every"),
        (Textless(), "Textless a __str__"),
        (Awaited(), "Awaited.next must be a plain function, not async"),
    ],
)
def test_invalid_rules_are_refused(rule: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        read_terms(rule)


def test_equal_arguments_make_equal_terms() -> None:
    until = datetime(2030, 1, 1, tzinfo=UTC)
    for rule, same in (
        (Every(60), Every(60)),
        (Cron("0 9 * * *", "UTC"), Cron("0 9 * * *", "UTC")),
    ):
        one, two = read_terms(rule, until=until), read_terms(same, until=until)
        assert (one == two, hash(one) == hash(two)) == (True, True)
        assert one != read_terms(rule, until=until, jitter=1)


def test_a_rule_of_the_user_s_keeps_the_text_that_it_had() -> None:
    class Changing(Own):
        said = "before"

        def __str__(self) -> str:
            return self.said

    terms = read_terms(Changing())
    Changing.said = "after"
    assert terms.text == "before"
    assert terms.rule.next(datetime(2030, 1, 1, tzinfo=UTC)) is None
