"""The size of this process is what the system says."""

from __future__ import annotations

import psutil

from aioscheduler._processes.process import workers_module


def test_it_is_resident_bytes() -> None:
    measure = workers_module("size").make_measure()
    before = measure()
    assert isinstance(before, int)
    total = psutil.virtual_memory().total
    assert 1_000_000 < before < total
    kept = bytearray(64_000_000)
    kept[::4096] = b"x" * len(kept[::4096])
    assert measure() - before > 32_000_000
