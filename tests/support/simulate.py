"""Host and workers in one thread, on virtual time; `simulation` has the whole story.

python tests/support/simulate.py --seeds 5000          from 0 on
python tests/support/simulate.py --seeds 5000 --jobs 2 in two processes
python tests/support/simulate.py --seed 1234 --trace   replay one of them exactly
python tests/support/simulate.py --hosts --seeds 500   hosts that succeed one another on a store
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import multiprocessing
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from simulation.acts import WORLD
from simulation.hosts import HostWorld
from simulation.virtual import Spite, VirtualLoop
from simulation.world import World

from aioscheduler._transport import ledger

SHARE = 50  # seeds that a process gets at a time


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("aioscheduler", "asyncio")]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


@contextmanager
def _tight() -> Iterator[None]:
    """Make the ledger sweep at sizes that a seed reaches."""
    before = ledger._SLACK, ledger._LARGE_SLACK
    ledger._SLACK, ledger._LARGE_SLACK = 20, 20_000
    try:
        yield
    finally:
        ledger._SLACK, ledger._LARGE_SLACK = before


def _hear(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Be the loop's exception handler, which may raise itself."""
    if WORLD and WORLD[-1].spiteful and WORLD[-1].random.random() < 0.1:
        raise Spite("a handler raises")


def simulate(seed: int, trace: bool = False, hosts: bool = False) -> list[str]:
    """Live through a seed; return what went wrong, in words.

    Args:
        seed: Decides everything.
        trace: Whether to print what happens.
        hosts: Whether hosts succeed one another on a store; else one host runs without a store.
    """
    gc.disable()  # collections have workers forget definitions: the seed decides when
    loop = VirtualLoop()
    loop.set_exception_handler(_hear)
    asyncio.set_event_loop(loop)
    with _quiet(), _tight():
        world = HostWorld(seed, loop, trace) if hosts else World(seed, loop, trace)
        if isinstance(world, World):
            WORLD.append(world)
        try:
            loop.run_until_complete(world.run())
        except BaseException as error:  # noqa: BLE001  whatever it is, the seed is to be told
            states = [link.supervisor.state.value for link in world.manager._remotes]
            world.model.fault(f"{error!r}; no end: {world.left()[:10]}; workers: {states}")
        finally:
            WORLD.clear()
            _end_all(loop)
            asyncio.set_event_loop(None)
            loop.close()
            gc.enable()
    return world.model.faults


def _end_all(loop: asyncio.AbstractEventLoop) -> None:
    """End all tasks of a loop; those of a dead host may wait for ever."""
    for _ in range(3):
        rest = asyncio.all_tasks(loop)
        if rest:
            for task in rest:
                task.cancel()
            loop.run_until_complete(asyncio.wait(rest, timeout=60))


def simulate_all(
    seeds: range, until_bad: bool = False, hosts: bool = False
) -> dict[int, list[str]]:
    """Live through seeds, or up to the first that fails; return what went wrong."""
    found = {}
    for seed in seeds:
        if faults := simulate(seed, hosts=hosts):
            found[seed] = faults
            if until_bad:
                break
    gc.collect()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--trace", action="store_true", help="print what happens to it")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes")
    parser.add_argument("--until-bad", action="store_true", help="stop at the first that fails")
    parser.add_argument("--hosts", action="store_true", help="that follow one another on a store")
    options = parser.parse_args()
    if options.seed is not None:
        options.seeds, faults = 1, simulate(options.seed, options.trace, options.hosts)
        return _report([{options.seed: faults}] if faults else [], options)
    last = options.first + options.seeds
    shares = [range(n, min(n + SHARE, last)) for n in range(options.first, last, SHARE)]
    live = partial(simulate_all, until_bad=options.until_bad, hosts=options.hosts)
    if options.jobs == 1:
        return _report(map(live, shares), options)
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        return _report(pool.imap_unordered(live, shares), options)


def _report(results: Iterable[dict[int, list[str]]], options: argparse.Namespace) -> int:
    """Print failures as they come; return the exit status."""
    bad = 0
    for found in results:
        bad += len(found)
        for seed, faults in found.items():
            for fault in faults[:3]:
                print(f"seed {seed}: {fault[:800]}", flush=True)
        if bad and options.until_bad:
            return 1
    print(f"{options.seeds - bad:,} seeds held, {bad:,} did not")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
