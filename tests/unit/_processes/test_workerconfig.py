"""The configuration of workers, for each kind of manager."""

from __future__ import annotations

import dataclasses
import os
import pickle
from multiprocessing import get_context
from typing import Any

import pytest

from aioscheduler import LifoQueuedScheduler, Manager
from aioscheduler._processes.workerconfig import WorkerConfig
from aioscheduler._processes.workerhandle import MakeWorkerHandle
from aioscheduler._routing.assembly import Seams
from aioscheduler._scheduling.order import Order


class Recording(Manager):
    """A manager that records the configurations of its workers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.configs: list[WorkerConfig] = []
        super().__init__(*args, **kwargs | {"_seams": Seams(process_maker=self._note)})

    def _note(self, config: WorkerConfig, *others: Any) -> MakeWorkerHandle:
        self.configs.append(config)
        return Seams().process_maker(config, *others)


def test_workers_have_equal_configurations_except_their_slots() -> None:
    manager = Recording(5, workers=2, prefer_utc=False)
    assert manager.configs == [
        WorkerConfig(
            manager=manager._id,
            order=Order.TIMED,
            layout=(3, 2),
            prefer_utc=False,
            host=os.getpid(),
            worker=worker,
        )
        for worker in range(2)
    ]
    assert [config.schedulers for config in manager.configs] == [3, 2]


def test_the_order_is_that_of_the_class() -> None:
    (config,) = Recording(cls=LifoQueuedScheduler, workers=1).configs
    assert config.order is Order.LIFO


def test_objects_that_only_a_new_process_can_inherit_are_handed_over() -> None:
    lock = get_context("spawn").Lock()
    (config,) = Recording(1, initializer=print, initargs=("plain", lock)).configs
    assert config.handed == (lock,)


def test_it_arrives_as_it_was() -> None:
    (config,) = Recording(1, workers=1).configs
    assert pickle.loads(pickle.dumps(config)) == config


@pytest.mark.parametrize(
    ("name", "worker", "shown"),
    [
        (None, 3, "aiosched-3"),
        ("bots", 3, "bots-3"),
        ("reminders-and-more", 12, "reminders-an-12"),
        ("ä" * 20, 3, "ä" * 6 + "-3"),  # 13 bytes would cut one in half
    ],
)
def test_the_kernel_shows_the_number_and_what_fits_of_the_name(
    name: str | None, worker: int, shown: str
) -> None:
    (config, *_) = Recording(1, workers=1, name=name).configs
    config = dataclasses.replace(config, worker=worker)
    assert config.short_name == shown
    assert len(shown.encode()) <= 15
    assert config.process_name == f"aioscheduler-{name or config.manager}-{worker}"
