"""Scraping real managers over HTTP, as Prometheus does."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from aioscheduler import Manager
from aioscheduler.metrics import ManagerCollector

PAGE = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
SOON = timedelta(milliseconds=50)
FAR = timedelta(hours=1)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def give(value: Any) -> Any:
    return value


async def fail() -> None:
    raise ValueError


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def total(samples: Samples, name: str, **labels: str) -> float:
    """Return the sum of all samples with a name and these labels."""
    return sum(
        value
        for (sample, has), value in samples.items()
        if sample == name and labels.items() <= has
    )


@contextmanager
def page_of(*collectors: ManagerCollector) -> Iterator[Callable[[], Samples]]:
    """Serve collectors over HTTP; yield a function that scrapes them."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)

    def scrape() -> Samples:
        with urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return {
            key(sample.name, **sample.labels): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    try:
        yield scrape
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        until = time.monotonic() + 5  # the server does not wait for the threads of requests
        while any("process_request" in t.name for t in threading.enumerate()):
            assert time.monotonic() < until
            time.sleep(0.01)


@pytest.mark.parametrize("workers", [0, 2])
async def test_a_scrape_tells_what_ran(workers: int, reports: list[Any]) -> None:
    workers_there = {str(worker) for worker in range(workers or 1)}
    manager = Manager(workers=workers)
    with page_of(ManagerCollector(manager)) as scrape:
        samples = scrape()
        assert total(samples, "aioscheduler_worker_state", state="starting") == len(workers_there)
        async with manager:
            good = [manager.schedule(give(n), SOON) for n in range(20)]
            bad = [manager.schedule(fail(), SOON) for _ in range(3)]
            far = [manager.schedule(give(n), FAR) for n in range(5)]
            running = manager.schedule(asyncio.sleep(60))
            await asyncio.gather(*good, *bad, return_exceptions=True)
            assert far[0].cancel()
            async with asyncio.timeout(10):
                while total(samples, "aioscheduler_task_lateness_seconds_count") < 24:
                    await asyncio.sleep(0.1)
                    samples = await asyncio.to_thread(scrape)
            ended = {
                outcome: total(samples, "aioscheduler_tasks_total", outcome=outcome)
                for outcome in ("finished", "failed", "cancelled", "lost")
            }
            assert ended == {"finished": 20, "failed": 3, "cancelled": 1, "lost": 0}
            assert total(samples, "aioscheduler_tasks_pending") == 4
            assert total(samples, "aioscheduler_tasks_running") == 1
            assert total(samples, "aioscheduler_worker_restarts_total") == 0
            assert total(samples, "aioscheduler_task_lateness_seconds_bucket", le="+Inf") == 24
            assert 0 < total(samples, "aioscheduler_task_lateness_seconds_sum") < 24 * 5
            for worker in workers_there:
                assert samples[key("aioscheduler_worker_state", worker=worker, state="ready")] == 1
                assert total(samples, "aioscheduler_worker_state", worker=worker) == 1
                rss = samples[key("aioscheduler_worker_resident_memory_bytes", worker=worker)]
                assert rss > 1 << 20
                assert samples[key("aioscheduler_loop_lag_seconds", worker=worker)] >= 0
                assert 0 <= samples[key("aioscheduler_worker_cpu_ratio", worker=worker)] < 64
            assert samples[key("aioscheduler_host_resident_memory_bytes")] > 1 << 20
            assert samples[key("aioscheduler_host_loop_lag_seconds")] >= 0
            assert samples[key("aioscheduler_host_cpu_ratio")] >= 0
            assert {dict(has).get("worker") for _, has in samples} == {None, *workers_there}
            running.cancel()
        samples = scrape()
        assert total(samples, "aioscheduler_worker_state", state="stopped") == len(workers_there)
        assert total(samples, "aioscheduler_tasks_total") == 29


def counters(samples: Samples) -> Samples:
    ends = ("_total", "_bucket", "_count", "_sum")
    return {sample: value for sample, value in samples.items() if sample[0].endswith(ends)}


async def test_counters_never_go_back_when_a_worker_is_replaced() -> None:
    async with Manager(workers=2, max_restarts=(99, 1.0)) as manager:
        with page_of(ManagerCollector(manager)) as scrape:
            await manager.map(give, range(50), SOON)
            before: Samples = {}
            async with asyncio.timeout(10):  # workers report their lateness once a second
                while total(before, "aioscheduler_task_lateness_seconds_count") < 50:
                    await asyncio.sleep(0.1)
                    before = await asyncio.to_thread(scrape)
            pid = manager.stats().workers[0].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            async with asyncio.timeout(20):
                while True:
                    after = await asyncio.to_thread(scrape)
                    assert counters(before).keys() == counters(after).keys()
                    for sample, value in counters(before).items():
                        assert after[sample] >= value, sample
                    before = after
                    restarts = after[key("aioscheduler_worker_restarts_total", worker="0")]
                    if restarts and total(after, "aioscheduler_worker_state", state="ready") == 2:
                        break
            assert await manager.map(give, range(50), SOON) == list(range(50))
            after = await asyncio.to_thread(scrape)
            assert total(after, "aioscheduler_tasks_total", outcome="finished") == 100


async def test_two_managers_on_one_page() -> None:
    async with Manager(workers=0) as first, Manager(workers=1) as second:
        collector = ManagerCollector({"first": first, "second": second})
        with page_of(collector) as scrape:
            await asyncio.gather(first.map(give, range(3)), second.map(give, range(5)))
            samples = await asyncio.to_thread(scrape)
    ended = [total(samples, "aioscheduler_tasks_total", manager=m) for m in ("first", "second")]
    assert ended == [3, 5]


def test_the_page_describes_every_metric() -> None:
    described = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \|", PAGE, re.MULTILINE)
    found = {
        (
            family.name + ("_total" if family.type == "counter" else ""),
            family.type,
            ", ".join(f"`{label}`" for label in family._labelnames),  # type: ignore[attr-defined]
        )
        for family in ManagerCollector(Manager(workers=0)).describe()
    }
    assert set(described) == found
    assert len(described) == len(found)
