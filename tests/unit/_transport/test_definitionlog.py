"""Lines are there as long as somebody has a lease of them, and readers hear of both."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from aioscheduler._transport import wire
from aioscheduler._transport.definitionlog import FORGET, FORGET_AT, DefinitionLog, Reader, leased


def test_a_line_without_leases_stays() -> None:
    log = DefinitionLog()
    number = log.write(3, "field")
    assert wire.unpack(log.lines[number]) == [3, number, "field"]
    assert type(log.lease(number)) is int
    assert not log.leased
    assert list(log.unused()) == []


def test_a_line_is_unused_when_its_last_lease_has_come_back() -> None:
    log = DefinitionLog()
    number = log.write(0, names=())
    first, second = log.lease(number), log.lease(number)
    assert first == second == number
    del first
    assert list(log.unused()) == []
    del second
    again = log.lease(number)  # before anybody has looked
    assert list(log.unused()) == []
    del again
    assert list(log.unused()) == [number]
    assert number in log.lines  # it is the caller's to drop


def test_a_line_keeps_those_that_it_names() -> None:
    log = DefinitionLog()
    below = log.write(0, names=())
    above = log.write(0, names=[log.lease(below)])
    lease = log.lease(above)
    assert list(log.unused()) == []
    del lease
    found = []
    for number in log.unused():
        found.append(number)
        log.drop(number)
    assert found == [above, below]
    assert not log.lines


def test_a_lease_of_what_was_dropped_is_a_number() -> None:
    log = DefinitionLog()
    number = log.write(0, names=())
    held = log.lease(number)
    log.drop(number)
    assert log.lease(number) == number
    assert log.write(0) == number + 1  # no number is given twice
    del held
    assert list(log.unused()) == []


def test_a_payload_that_names_nothing_is_left_as_it_is() -> None:
    payload = b"pickle"
    assert leased(payload, []) is payload
    holds = leased(payload, [1])
    assert holds == payload
    assert wire.unpack(wire.pack(holds)) == payload


def test_a_reader_is_told_of_large_lines_that_went() -> None:
    log = DefinitionLog()
    reader = Reader(log)
    small, large = log.write(0, b"x"), log.write(0, b"x" * 100_000)
    assert len(reader.read()) == 2
    log.drop(small)
    assert reader.read() == []
    log.drop(large)
    ((kind, _, gone),) = map(wire.unpack, reader.read())
    assert (kind, sorted(gone)) == (FORGET, [small, large])
    assert reader.read() == []


@given(st.lists(st.sampled_from(["write", "drop", "read", "restart"]), max_size=400))
def test_a_reader_has_what_the_log_has_and_not_much_more(steps: list[str]) -> None:
    log = DefinitionLog()
    reader = Reader(log)
    knows: set[int] = set()
    victims = itertools.count()
    for step in [*steps, "read"]:
        if step == "write":
            log.write(1, names=())
        elif step == "drop" and log.lines:
            log.drop(list(log.lines)[next(victims) % len(log.lines)])
        elif step == "restart":
            reader.restart()
            knows.clear()
        elif step == "read":
            for kind, number, *fields in map(wire.unpack, reader.read()):
                if kind == FORGET:
                    assert knows.issuperset(fields[0])
                    knows.difference_update(fields[0])
                else:
                    assert number not in knows
                    knows.add(number)
            assert knows >= log.lines.keys()
            assert len(knows) - len(log.lines) <= FORGET_AT + len(knows) // 8 + 1
