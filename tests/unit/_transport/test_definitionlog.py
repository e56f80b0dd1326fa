"""A line is kept while it has leases, and readers are sent new lines and word of retired ones."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioscheduler._transport import wire
from aioscheduler._transport.definitionlog import FORGET, DefinitionLog, Reader, leased


def test_a_line_without_leases_stays() -> None:
    log = DefinitionLog()
    number = log.write(3, "field")
    assert wire.unpack(log.lines[number]) == [3, number, "field"]
    assert type(log.lease(number)) is int
    assert not log.leased
    assert list(log.unused()) == []


def test_a_line_that_cannot_be_packed_is_not_added() -> None:
    log = DefinitionLog()
    with pytest.raises(UnicodeEncodeError):
        log.write(3, "\udc80")
    assert (log.next, log.lines) == (0, {})


def test_a_line_is_unused_when_its_last_lease_was_returned() -> None:
    log = DefinitionLog()
    number = log.write(0, names=())
    first, second = log.lease(number), log.lease(number)
    assert first == second == number
    del first
    assert list(log.unused()) == []
    del second
    again = log.lease(number)  # before `unused` was read
    assert list(log.unused()) == []
    del again
    assert list(log.unused()) == [number]
    assert number in log.lines  # the caller must drop it


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
        log.retire(number)
        assert log.forgotten() == [number]  # there are no readers
        log.drop(number)
    assert found == [above, below]
    assert not log.lines


def test_a_lease_of_a_dropped_line_is_a_plain_number() -> None:
    log = DefinitionLog()
    number = log.write(0, names=())
    held = log.lease(number)
    log.drop(number)
    assert log.lease(number) == number
    assert log.write(0) == number + 1  # no number is reused
    del held
    assert list(log.unused()) == []


def test_a_payload_that_names_nothing_is_left_as_it_is() -> None:
    payload = b"pickle"
    assert leased(payload, []) is payload
    holds = leased(payload, [1])
    assert holds == payload
    assert wire.unpack(wire.pack(holds)) == payload


def test_a_reader_is_told_to_forget_large_lines() -> None:
    log = DefinitionLog()
    reader = Reader(log)
    small, large = log.write(0, b"x"), log.write(0, b"x" * 100_000)
    assert len(reader.read()) == 2
    log.retire(small)
    assert reader.read() == []
    log.retire(large)
    ((kind, _, gone),) = map(wire.unpack, reader.read())
    assert (kind, sorted(gone)) == (FORGET, [small, large])
    assert reader.read() == []


def test_a_line_is_there_until_every_reader_has_confirmed_that_it_is_forgotten() -> None:
    log = DefinitionLog()
    readers = [Reader(log), Reader(log)]
    line = log.write(0, b"x" * 100_000, names=())
    readers[0].read()
    log.retire(line)
    assert log.forgotten() == []
    ((_, serial, _),) = map(wire.unpack, readers[0].read())
    readers[1].read()  # it was never sent the line
    readers[0].confirm(serial - 1)
    assert log.forgotten() == []
    readers[0].confirm(serial)
    assert log.forgotten() == [line]
    readers[0].restart()
    assert line not in readers[0].known
    log.drop(line)
    assert readers[0].read() == []


def test_a_process_that_is_replaced_has_forgotten() -> None:
    log = DefinitionLog()
    reader = Reader(log)
    line = log.write(0, names=())
    reader.read()
    log.retire(line)
    assert log.forgotten() == []
    reader.restart()
    assert log.forgotten() == [line]


def test_what_is_named_before_it_is_forgotten_comes_back() -> None:
    log = DefinitionLog()
    reader, other = Reader(log), Reader(log)
    line = log.write(0, b"x" * 100_000, names=())
    reader.read()
    other.read()
    log.retire(line)
    ((_, serial, gone),) = map(wire.unpack, reader.read())
    assert gone == [line]
    lease = log.lease(line)  # an outcome has named it
    assert [wire.unpack(text)[1] for text in reader.read()] == [line]  # since forgotten
    assert other.read() == []  # it was never used
    reader.confirm(serial)
    assert log.forgotten() == []
    assert line in reader.known
    del lease
    assert list(log.unused()) == [line]


def test_a_line_that_comes_back_is_sent_to_a_process_that_never_had_it() -> None:
    log = DefinitionLog()
    reader = Reader(log)
    line = log.write(0, names=())
    log.retire(line)
    assert reader.read() == []
    lease = log.lease(line)
    assert [wire.unpack(text)[1] for text in reader.read()] == [line]
    assert line in reader.known
    del lease
    assert list(log.unused()) == [line]
    log.retire(line)
    again = log.lease(line)  # the process knows it, and no FORGET names it
    assert reader.read() == []
    del again


def test_a_line_that_came_back_and_was_retired_again_is_not_sent() -> None:
    log = DefinitionLog()
    knows, never = Process(log), Process(log)
    line = log.write(0, b"x" * 100_000, names=())
    knows.read()
    log.retire(line)
    never.read()
    lease = log.lease(line)  # it came back, and `never` must be sent it
    del lease
    assert list(log.unused()) == [line]
    log.retire(line)
    knows.read()
    knows.reader.confirm(knows.confirmed)
    assert log.forgotten() == [line]
    log.drop(line)
    never.read()
    assert not knows.knows | never.knows


def test_a_line_retired_again_before_it_was_sent_is_sent_once_it_is_used() -> None:
    log = DefinitionLog()
    process = Process(log)
    line = log.write(1, b"x" * 100_000, names=())
    process.read()
    log.retire(line)
    process.read()  # a FORGET was sent, and is not confirmed
    lease = log.lease(line)
    del lease
    assert list(log.unused()) == [line]
    log.retire(line)
    process.read()
    lease = log.lease(line)
    process.read()
    assert process.knows == {line}
    process.reader.confirm(process.confirmed)
    assert log.forgotten() == []
    assert log.lines.keys() == {line}
    del lease


STEPS = ("write", "retire", "read", "confirm", "lease", "release", "restart")


@given(st.integers(0, 1 << 32))
@settings(max_examples=500)
def test_a_reader_has_what_the_log_has_and_not_much_more(seed: int) -> None:
    """Processes read all lines sent; every line that one of them may name is always there."""
    draw = random.Random(seed)
    log = DefinitionLog()
    processes = [Process(log), Process(log)]
    held: list[int] = []
    for step in [*draw.choices(STEPS, k=draw.randint(1, 30)), "read", "read"]:
        process = draw.choice(processes)
        if step == "write":
            log.write(1, b"x" * draw.choice((20_000, 100_000)), names=())
        elif step == "retire" and log.lines.keys() - log.retired:
            victim = draw.choice(sorted(log.lines.keys() - log.retired))
            if victim not in held:
                log.retire(victim)
        elif step == "lease" and log.lines:
            held.append(log.lease(draw.choice(sorted(log.lines))))
        elif step == "release" and held:
            del held[draw.randrange(len(held))]
            for number in log.unused():
                log.retire(number)
        elif step == "confirm":
            process.reader.confirm(process.confirmed)
        elif step == "restart":
            process.reader.restart()
            process.knows.clear()
        elif step == "read":
            process.read()
            assert process.knows >= log.lines.keys() - log.retired
        for number in log.forgotten():
            log.drop(number)
        assert all(each.knows <= log.lines.keys() for each in processes)
        assert log.retired.isdisjoint(held)


class Process:
    """A process that reads a log as it is."""

    def __init__(self, log: DefinitionLog) -> None:
        self.reader = Reader(log)
        self.knows: set[int] = set()
        self.confirmed = 0

    def read(self) -> None:
        for kind, number, *fields in map(wire.unpack, self.reader.read()):
            if kind == FORGET:
                assert self.knows.issuperset(fields[0])
                self.knows.difference_update(fields[0])
                self.confirmed = number
            else:
                self.knows.add(number)
