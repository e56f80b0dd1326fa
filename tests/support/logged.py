"""Functions that log in workers, for `test_logs`: found by name, as in a user's module."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading

LOG = logging.getLogger("logged")


def log_all(word: str) -> None:
    """Log a word in every way."""
    LOG.debug("debug %s", word)
    LOG.info("info %s", word, extra={"request": 5, "odd": object()})
    try:
        raise LookupError("é")
    except LookupError:
        LOG.exception("failed %s", word)
    logging.getLogger("logged.chatty").debug("chatty %s", word)
    own = logging.getLogger("logged.own")
    own.propagate = False
    own.addHandler(logging.NullHandler())
    own.error("not forwarded %s", word)


async def log_in_task(word: str) -> None:
    log_all(word)


async def log_in_thread(word: str) -> None:
    thread = threading.Thread(target=log_all, args=(word,), name=f"thread of {word}")
    thread.start()
    while thread.is_alive():
        await asyncio.sleep(0.01)


def configure() -> None:
    """Set up logging as if it were alone; an initializer."""
    LOG.info("before")
    logging.basicConfig(stream=sys.stdout, level=logging.ERROR, force=True)
    LOG.setLevel(logging.INFO)
    LOG.info("between")


def fail_to_begin() -> None:
    LOG.error("its last words")
    raise LookupError("no database")


def flood(start: int, end: int) -> None:
    for number in range(start, end):
        LOG.info("flood %d", number)


async def flood_in_tasks(count: int) -> None:
    for start in range(0, count, 50):
        flood(start, min(start + 50, count))
        await asyncio.sleep(0)


async def flood_in_thread(count: int) -> None:
    await asyncio.to_thread(flood, 0, count)


async def log_and_wait(word: str) -> None:
    LOG.info("%s", word)
    try:
        await asyncio.sleep(60)
    finally:
        LOG.info("%s ends", word)


def log_and_die(word: str) -> None:
    LOG.info("%s", word)
    os._exit(3)


def log_in_forked_child(word: str) -> int:
    LOG.info("before %s", word)
    child = os.fork()
    if not child:
        LOG.warning("%s", word)
        os._exit(0)
    return os.waitpid(child, 0)[1]


async def square(number: int) -> int:
    await asyncio.sleep(0)
    return number * number
