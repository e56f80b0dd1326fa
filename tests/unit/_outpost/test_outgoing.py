"""What is sent, and when: one message a turn, or at once if there is much."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aioscheduler._outpost.outgoing import ACK_DUE, BATCH, Outgoing


class Sent:
    def __init__(self) -> None:
        self.messages: list[tuple[list[Any], dict[int, list[int]]]] = []
        self.outgoing = Outgoing(asyncio.get_running_loop(), self.send)

    def send(self, items: list[Any], acks: dict[int, list[int]]) -> None:
        self.messages.append((items, acks))


@pytest.fixture
async def sent() -> Sent:
    return Sent()


async def test_items_of_a_turn_are_one_message(sent: Sent) -> None:
    sent.outgoing.post(1, "a")
    sent.outgoing.post(2)
    assert not sent.messages
    await asyncio.sleep(0)
    assert sent.messages == [([(1, "a"), (2,)], {})]
    await asyncio.sleep(0)
    assert len(sent.messages) == 1


async def test_large_items_are_sent_at_once_and_once(sent: Sent) -> None:
    sent.outgoing.post(1, size=BATCH - 1)
    assert not sent.messages
    sent.outgoing.post(2, size=1)
    assert [len(items) for items, _ in sent.messages] == [2]
    await asyncio.sleep(0)
    assert len(sent.messages) == 1


async def test_acks_go_with_what_is_sent_and_the_last_of_a_place_holds(sent: Sent) -> None:
    sent.outgoing.took(0, 1, 10, 10)
    sent.outgoing.took(0, 1, 10, 20)
    sent.outgoing.took(3, 0, 5, 5)
    await asyncio.sleep(0)
    assert not sent.messages  # acknowledgements can wait
    sent.outgoing.post(1)
    await asyncio.sleep(0)
    assert sent.messages == [([(1,)], {0: [1, 20], 3: [0, 5]})]


async def test_acks_of_much_go_alone(sent: Sent) -> None:
    """The other side may be waiting for them (`WINDOW`)."""
    sent.outgoing.took(0, 1, ACK_DUE - 1, ACK_DUE - 1)
    await asyncio.sleep(0)
    assert not sent.messages
    sent.outgoing.took(1, 1, 1, 1)
    await asyncio.sleep(0)
    assert sent.messages == [([], {0: [1, ACK_DUE - 1], 1: [1, 1]})]
    sent.outgoing.flush()
    assert len(sent.messages) == 1  # there is nothing left


async def test_nothing_is_sent_after_a_stop(sent: Sent) -> None:
    sent.outgoing.post(1)
    sent.outgoing.stop()
    await asyncio.sleep(0)
    assert not sent.messages
