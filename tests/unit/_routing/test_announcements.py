"""Which tasks have begun, according to two orders and the black box."""

from __future__ import annotations

from aioscheduler._routing.announcements import Announcements
from aioscheduler._transport import wire
from aioscheduler._transport.definitionlog import DefinitionLog
from aioscheduler._transport.outbox import Outbox
from aioscheduler._transport.wire import Kind


class Rig:
    """Announcements, and the wake-ups to send CONFIRM."""

    def __init__(self, timed: bool = True) -> None:
        self.outbox = Outbox(DefinitionLog())
        self.announcements = Announcements(2, timed, self.outbox)
        self.announcements.wake = self.wake
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1

    def frames(self) -> list[wire.Frame]:
        return list(wire.Decoder().feed(b"".join(self.outbox.take()[0])))

    def unbegun(self, started: int, confirmed: int) -> list[tuple[int, list[int] | None]]:
        return list(self.announcements.unbegun(1, (started, confirmed)))


def test_timed_tasks_begin_as_they_were_announced_or_as_they_had_our_word() -> None:
    rig = Rig()
    first = rig.announcements.proposed(1, [1, 2])
    second = rig.announcements.proposed(1, [3])
    rig.announcements.proposed(0, [9])
    rig.announcements.announced(1, [4, 5])
    assert rig.announcements.unconfirmed == [(1, [1, 2]), (1, [3]), (0, [9])]
    assert rig.unbegun(5, 0) == [(4, [5]), (-1, [])]
    second()
    first()
    assert (rig.woken, rig.frames()) == (2, [[Kind.CONFIRM, [1, 0]]])
    assert rig.announcements.unconfirmed == [(0, [9])]
    assert rig.unbegun(6, 2) == [(5, []), (1, [2])]
    assert rig.unbegun(0, 4) == [(-1, [4, 5]), (3, [1, 2])]


def test_those_of_a_queue_begin_as_they_were_announced() -> None:
    rig = Rig(timed=False)
    first = rig.announcements.proposed(1, [1, 2])
    rig.announcements.announced(1, [3])
    first()
    assert rig.unbegun(3, 0) == [(2, [3]), (-1, [])]


def test_the_head_of_a_queue_begins_again_where_it_was() -> None:
    rig = Rig(timed=False)
    rig.announcements.proposed(1, [1, 2])()
    rig.announcements.heads.add(1)
    rig.announcements.proposed(1, [1])
    assert rig.announcements.heads == set()
    assert rig.unbegun(2, 0) == [(1, [2]), (-1, [])]


def test_after_an_unannounced_task_the_order_is_unknown() -> None:
    rig = Rig()
    rig.announcements.announced(1, [1, 2])
    assert rig.unbegun(8, 9) == [(7, None), (8, None)]
    rig.announcements.announced(1, range(100, 1200))
    assert rig.unbegun(2, 0)[0] == (1, None)  # too long ago
    assert rig.unbegun(1190, 0)[0] == (1189, list(range(1190, 1200)))


def test_the_last_of_two_announcements_counts() -> None:
    rig = Rig()
    for numbers in ([1, 2], [1, 3]):
        rig.announcements.announced(1, numbers)
    assert rig.unbegun(2, 0)[0] == (1, [3])


def test_our_word_is_for_the_process_that_has_announced() -> None:
    rig = Rig()
    old = rig.announcements.proposed(1, [1])
    rig.announcements.announced(1, [2])
    rig.announcements.heads.add(3)
    rig.announcements.clear()
    assert not rig.announcements.heads
    assert rig.unbegun(0, 0) == [(-1, []), (-1, [])]
    new = rig.announcements.proposed(1, [1])
    old()
    assert (rig.woken, rig.frames()) == (0, [])
    new()
    new()
    assert (rig.woken, rig.frames()) == (1, [[Kind.CONFIRM, [0]]])
