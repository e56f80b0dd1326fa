"""Deeds of other processes on a store: run as `python hosting.py DEED PATH …`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from stores import read_all

from aioscheduler.__main__ import main
from aioscheduler._durable.records import Batch, Row
from aioscheduler._durable.sqlite import SQLiteStore
from aioscheduler._processes.spawn import SpawnProcess
from aioscheduler.errors import StoreError


def say(*words: object) -> None:
    print(*words, flush=True)


def heed() -> None:
    """Wait for a line from the test."""
    sys.stdin.readline()


def row_of(number: int) -> Row:
    return Row(number, number << 40, 1, b"x" * (4000 if number % 7 == 0 else 10))


def rows_of(first: int, count: int) -> Batch:
    return Batch(puts=[row_of(first + i) for i in range(count)])


def host(path: str, wait: str = "0") -> SQLiteStore:
    """Open the store, or print why it cannot."""
    store = SQLiteStore(path, wait=float(wait))
    try:
        opening = store.open()
    except StoreError as error:
        say(type(error).__name__, *getattr(error, "pids", ()))
        say(error)
        sys.exit()
    say("open", opening.tasks, opening.clean)
    return store


def hold(path: str, first: str = "1") -> None:
    """Store ten rows, ten more for each line, and close at the end of the lines."""
    store = host(path)
    number = int(first)
    while True:
        try:
            store.commit(rows_of(number, 10))
        except StoreError as error:
            say(type(error).__name__)
        else:
            say("stored")
        number += 10
        if not sys.stdin.readline():
            break
    try:
        store.close(True)
    except StoreError as error:
        say(type(error).__name__)
    say("closed")


def lose(path: str) -> None:
    """Do as hold in a program that deletes the lock file and drops SQLite's own lock."""
    store = host(path)
    store.commit(rows_of(1, 10))
    say("stored")
    heed()
    os.unlink(f"{path}.lock")
    with open(path, "rb"):  # closing it drops all POSIX locks of this process
        pass
    say("lost")
    heed()
    try:
        store.commit(rows_of(1001, 10))
    except StoreError as error:
        say(type(error).__name__)
    try:
        store.close(True)
    except StoreError as error:
        say(type(error).__name__)
    say("closed")
    heed()


def write(path: str) -> None:
    """Commit batches for ever, and print up to which row all is stored."""
    store = host(path)
    number = sum(map(len, read_all(store)))
    while True:
        count = (1, 7, 300)[number % 3]
        store.commit(rows_of(number + 1, count))
        number += count
        say(number)


def with_worker(path: str) -> None:
    """Be a host with a worker that also holds the lock, and outlives it."""
    import hosting  # the worker knows it by this name

    store = host(path)
    process = SpawnProcess(target=hosting.linger, args=(store.hand_over(),))
    process.start()
    heed()


def linger(held: Any) -> None:
    """Fork a child in the worker, and stay."""
    del held
    child = os.fork()
    if child:
        say(os.getpid(), child)
    time.sleep(60)


def fork(path: str) -> None:
    """Fork while the store is open: the child cannot use it, nor harm it."""
    store = host(path)
    store.commit(rows_of(1, 500))
    child = os.fork()
    if not child:
        with suppress(StoreError):
            store.commit(Batch())
            say("used")
        store.close(True)
        sys.exit(7)  # with all clean-up, which os._exit would skip
    say("ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    store.commit(rows_of(501, 400))
    say("stored")
    heed()


def as_nobody(path: str) -> None:
    """Become a user to whom file modes apply."""
    if os.geteuid() == 0:
        os.setuid(65534)
    host(path).close(True)


def ask_as_nobody(path: str, *words: str) -> None:
    """Run the command line as such a user."""
    Path("/").as_uri()  # import now what that user may not be able to read
    if os.geteuid() == 0:
        os.setuid(65534)
    sys.exit(main(["store", path, *words]))


DEEDS: dict[str, Callable[..., None]] = {
    each.__name__: each for each in (hold, lose, write, with_worker, fork, as_nobody, ask_as_nobody)
}

if __name__ == "__main__":
    DEEDS[sys.argv[1]](*sys.argv[2:])
