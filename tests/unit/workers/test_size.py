"""The size of this process is that reported by the system, or 0."""

from __future__ import annotations

import mmap
from typing import Any

import psutil
import pytest

from aioscheduler._processes.process import workers_module

size = workers_module("size")


def nowhere(*_: object, **__: object) -> Any:
    raise FileNotFoundError


def test_it_is_resident_bytes() -> None:
    before = size.resident_bytes()
    assert isinstance(before, int)
    total = psutil.virtual_memory().total
    assert 1_000_000 < before < total
    with mmap.mmap(-1, 64_000_000) as kept:  # freed memory may be resident already
        for start in range(0, len(kept), mmap.PAGESIZE):
            kept[start] = 1
        assert size.resident_bytes() - before > 32_000_000


class Process:
    """As psutil's."""

    def memory_info(self) -> Process:
        return self

    rss = 5_000


def test_without_the_file_psutil_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.open", nowhere)
    monkeypatch.setattr(psutil, "Process", Process)
    assert size.resident_bytes() == 5_000


@pytest.mark.parametrize("error", [psutil.AccessDenied, psutil.NoSuchProcess, MemoryError])
def test_an_unknown_size_is_0(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def refuse() -> Any:
        raise error(1) if issubclass(error, psutil.Error) else error

    monkeypatch.setattr("builtins.open", nowhere)
    monkeypatch.setattr(psutil, "Process", refuse)
    assert size.resident_bytes() == 0
