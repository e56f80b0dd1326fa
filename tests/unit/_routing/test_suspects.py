"""When suspects begin: in lots, alone, and for how long."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from aioscheduler._routing.suspects import LOTS, QUARANTINE, QUARANTINE_ALONE, Suspects

LOT, SMALL, _ = LOTS


class Turns(Suspects):
    """Records which tasks have begun."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[str] = []

    def put(self, *tasks: str, losses: int = 0, now: int = 0) -> None:
        self.ask(tasks, losses, now, lambda: self.begun.append("".join(tasks)))


@pytest.fixture
def turns() -> Turns:
    return Turns()


def test_so_many_run_as_a_lot_has_and_the_next_follow_on_their_ends(turns: Turns) -> None:
    names = [f"{n}," for n in range(LOT)]
    turns.put(*names[:-1])
    turns.put("x")
    turns.put("y")
    turns.put("z")
    assert turns.begun == ["".join(names[:-1]), "x"]
    turns.clear("0,", 1)
    assert turns.begun[2:] == ["y"]
    turns.clear("x", 1)
    turns.clear("x", 1)  # cleared already
    assert turns.begun[2:] == ["y", "z"]


def test_more_than_a_lot_begin_together_if_nothing_else_runs(turns: Turns) -> None:
    names = [f"{n}," for n in range(LOT + 1)]
    turns.put("a")
    turns.put(*names)
    assert turns.begun == ["a"]
    turns.clear("a", 1)
    assert turns.begun[1:] == ["".join(names)]


def test_tasks_that_must_run_alone_do_and_in_turn(turns: Turns) -> None:
    turns.put("a")
    turns.put("b", losses=2)
    turns.put("c")
    turns.put("d", losses=2)
    assert turns.begun == ["a"]
    for ended, begun in (("a", "b"), ("b", "c"), ("c", "d")):
        turns.clear(ended, 1)
        assert turns.begun[-1] == begun
    turns.put("e")
    assert turns.begun[-1] == "d"


def test_the_others_wait_no_longer_than_the_quarantine(turns: Turns) -> None:
    turns.put("a", losses=2, now=5)
    turns.put("b", losses=2, now=6)
    turns.look_after(QUARANTINE_ALONE + 4)
    assert turns.begun == ["a"]
    turns.look_after(QUARANTINE_ALONE + 5)
    assert turns.begun == ["a", "b"]
    turns.look_after(2 * QUARANTINE_ALONE + 4)
    turns.put("c", now=2 * QUARANTINE_ALONE + 4)
    assert turns.begun == ["a", "b"]  # its time counts from its start
    turns.look_after(2 * QUARANTINE_ALONE + 5)
    assert turns.begun == ["a", "b", "c"]


def test_those_that_were_lost_once_begin_in_small_lots_and_with_no_more_others(
    turns: Turns,
) -> None:
    for n in range(SMALL - 1):
        turns.put(f"{n},", losses=1)
    turns.put("a")
    turns.put("b")
    turns.put("c", losses=1)
    turns.put("d", losses=3)
    assert turns.begun[-1] == "a"
    for ended, begun in (("0,", "b"), ("1,", "c")):
        turns.clear(ended, 1)
        assert turns.begun[-1] == begun
    for ended in [f"{n}," for n in range(2, SMALL - 1)] + ["a", "b"]:
        turns.clear(ended, 1)
    assert turns.begun[-1] == "c"
    turns.clear("c", 1)
    assert turns.begun[-1] == "d"


def test_a_lot_is_waited_for_less_long(turns: Turns) -> None:
    names = [f"{n}," for n in range(LOT)]
    turns.put(*names, now=5)
    turns.put("a", now=6)
    turns.look_after(QUARANTINE + 4)
    assert len(turns.begun) == 1
    turns.look_after(QUARANTINE + 5)
    assert turns.begun[1:] == ["a"]


def test_what_ends_before_its_turn_takes_no_turn(turns: Turns) -> None:
    turns.put("a", losses=2)
    turns.put("b", "c", losses=2)
    turns.put("d", losses=2)
    turns.clear("c", 1)
    turns.clear("b", 1)
    turns.clear("d", 1)
    # Their turn comes all the same.
    assert turns.begun == ["a", "bc", "d"]
    turns.put("e", losses=2)
    assert turns.begun[3:] == []
    turns.clear("a", 1)
    assert turns.begun[3:] == ["e"]


def test_one_that_ends_before_its_turn_is_not_waited_for(turns: Turns) -> None:
    turns.put("a", losses=2)
    turns.put("b", "c", losses=2)
    turns.put("d")
    turns.clear("b", 1)
    turns.clear("a", 1)
    turns.clear("c", 1)
    assert turns.begun == ["a", "bc", "d"]


def test_begin_may_clear_and_ask_at_once() -> None:
    turns = Suspects()
    begun: list[int] = []

    def beginning(n: int) -> Callable[[], None]:
        def begin() -> None:
            begun.append(n)
            if n < 2000:  # recursion could not go that deep
                turns.ask([n + 1], 2, 0, beginning(n + 1))
            turns.clear(n, 0)

        return begin

    turns.ask([0], 2, 0, beginning(0))
    assert begun == list(range(2001))


def test_what_raises_at_its_start_holds_up_nobody(turns: Turns) -> None:
    def begin() -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        turns.ask(["a"], 0, 0, begin)
    turns.put("b")
    assert turns.begun == ["b"]
