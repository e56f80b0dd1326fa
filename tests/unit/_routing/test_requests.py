"""The unanswered requests to tasks."""

from __future__ import annotations

from aioscheduler._routing.requests import Request, Requests
from aioscheduler._transport import wire
from aioscheduler._transport.entry import Entry
from aioscheduler._transport.wire import More

RETRIED = Entry(1, 500, 7, wire.make_record(More(attempt=2, failed=1, given=100)), None)


def make() -> Requests:
    return Requests({1: Request.CANCEL, 2: Request.WITHDRAW, 3: 300})


def test_two_of_three_ask_for_the_end() -> None:
    requests = make()
    assert [requests.ends(number) for number in range(5)] == [False, True, True, False, False]
    assert requests.count_ending([0, 1, 3, 2]) == 2
    assert Requests().count_ending([0, 1]) == 0


def test_the_third_asks_for_another_time() -> None:
    requests = make()
    assert requests.moves(range(5)) == {3: 300}
    assert requests.apply(3, RETRIED) == RETRIED.move(300)
    assert requests.apply(1, RETRIED) is requests.apply(0, RETRIED) is RETRIED


def test_what_is_forgotten_was_not_asked() -> None:
    requests = make()
    requests.forget([1, 3, 9])
    assert requests == {2: Request.WITHDRAW}
    requests.forget([2])
    requests.forget([2])
    assert not requests
