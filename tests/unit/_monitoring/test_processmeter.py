from __future__ import annotations

import os
from typing import Any

import psutil
import pytest

from aioscheduler._monitoring.processmeter import EVERY, NOTHING, ProcessMeter, command_line, exists


class Fake:
    """A fake `psutil.Process`."""

    created = 1000.0
    cpu = 0.0
    rss = 1 << 20
    asked = 0
    gone = False

    def __init__(self, pid: int) -> None:
        if self.gone:
            raise psutil.NoSuchProcess(pid)

    def oneshot(self) -> Any:
        type(self).asked += 1
        return self

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...

    def create_time(self) -> float:
        return self.created

    def cpu_times(self) -> Any:
        if self.gone:
            raise psutil.ZombieProcess(1)
        return type("times", (), {"user": self.cpu / 2, "system": self.cpu / 2})

    def memory_info(self) -> Any:
        return type("memory", (), {"rss": self.rss})


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    made = type("Fake", (Fake,), {})
    monkeypatch.setattr(psutil, "Process", made)
    return made


def test_cpu_is_since_the_last_measurement_at_first_since_the_beginning(
    fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1010.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    meter = ProcessMeter(lambda: now[0])
    fake.cpu = 5.0
    assert meter.read([7]) == {7: (50.0, 1 << 20)}
    now[0] += 2.0
    fake.cpu, fake.rss = 9.0, 1 << 21
    assert meter.read([7]) == {7: (200.0, 1 << 21)}


def test_it_measures_at_most_every_quarter_of_a_second(fake: type[Fake]) -> None:
    now = [1010.0]
    meter = ProcessMeter(lambda: now[0])
    before = meter.read([7])
    fake.cpu = 100.0
    for _ in range(100):
        now[0] += EVERY / 200
        assert meter.read([7]) == before
    assert fake.asked == 1
    now[0] += EVERY
    assert meter.read([7]) != before


def test_a_clock_that_is_set_makes_no_nonsense(
    fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1010.0]
    meter = ProcessMeter(lambda: now[0])
    meter.read([7])
    monkeypatch.setattr("time.time", lambda: 0.0)
    now[0] += 10.0
    fake.cpu = 5.0
    assert meter.read([7])[7].cpu_percent == 50.0
    fake.cpu = 0.0  # another process with that pid
    now[0] += 1.0
    assert meter.read([7])[7].cpu_percent == 0.0


def test_a_forked_child_does_not_wait_for_a_lock_that_nobody_holds(
    fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = ProcessMeter()
    meter._lock.acquire()  # another thread of the parent was measuring
    monkeypatch.setattr("os.getpid", lambda: 1)
    assert meter.read([7])[7].rss == 1 << 20


def test_a_process_that_is_gone_takes_nothing_and_is_forgotten(fake: type[Fake]) -> None:
    now = [1010.0]
    meter = ProcessMeter(lambda: now[0])
    meter.read([7, 8])
    fake.gone = True
    now[0] += 1
    assert meter.read([7, 9]) == {7: NOTHING, 9: NOTHING}
    assert meter._processes.keys() == {7, 9}


def test_it_measures_this_process() -> None:
    cpu_percent, rss = ProcessMeter().read([os.getpid()])[os.getpid()]
    assert 0 < cpu_percent < 100 * (os.cpu_count() or 1)
    assert rss > 1 << 20


def test_a_process_has_its_words_while_it_is_there(fake: type[Fake]) -> None:
    fake.cmdline = lambda self: ["python", "bot.py"]  # type: ignore[attr-defined]
    assert command_line(7) == ["python", "bot.py"]
    fake.gone = True
    assert command_line(7) is None


def test_this_process_exists() -> None:
    assert exists(os.getpid())
    assert not exists(2**31 - 1)  # larger than any real pid
