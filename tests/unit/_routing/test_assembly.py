"""The assembly of a manager's parts."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from stores import TrickyStore

from aioscheduler._durable.sqlite import SQLiteStore
from aioscheduler._routing.assembly import Assembly, Held, Seams
from aioscheduler._routing.local import LocalLink
from aioscheduler._routing.settings import ManagerOptions, read_settings
from aioscheduler._scheduling.order import Order
from aioscheduler.errors import NotShippable
from aioscheduler.registry import check_plain
from aioscheduler.testing import FakeClock


def make(workers: int, store: Any = None, launched: list[Any] | None = None, **more: Any) -> Any:
    options: Any = dict.fromkeys(ManagerOptions.__annotations__) | {
        "workers": workers,
        "store": store,
        "initargs": (),
        "on_worker_loss": "fail",
        "max_restarts": (5, 30.0),
        "monitor": False,
        "context": (),
        "forward_logs": False,
        **more,
    }
    manager = FakeClock().manager(workers or 1, workers=workers)  # for its router
    seams = Seams()
    if launched is not None:
        seams = seams._replace(process_maker=lambda config, *_: launched.append(config) or None)  # type: ignore[arg-type,return-value,func-returns-value]
    settings = read_settings(Order.TIMED, True, workers or 1, options)
    owner = object()
    return Assembly(
        *(owner, "m", settings, seams, manager._router, {}),
        *(lambda reason: None, lambda: None),
    )


def test_without_a_store_there_is_no_keeper() -> None:
    launched: list[Any] = []
    assembly = make(2, launched=launched)
    remotes, catalog = assembly.make_remotes()
    assert [remote._keeping for remote in remotes] == [None, None]
    assert [remote.book.durables for remote in remotes] == [None, None]
    assert [(config.worker, config.has_store, config.held) for config in launched] == [
        (0, False, None),
        (1, False, None),
    ]
    assert assembly.keeper is None
    assert remotes[0].shipper.catalog is catalog
    assert remotes[0].shipper.inspect is None
    local = make(0)
    assert isinstance(local.make_local(), LocalLink)
    assert local.keeper is None


def test_with_a_store_each_worker_has_a_keeping_and_holds_the_lock() -> None:
    launched: list[Any] = []
    assembly = make(2, TrickyStore(), launched)
    remotes, _ = assembly.make_remotes()
    assert [remote.book.durables for remote in remotes] == assembly.keeper.keepings
    assert all(config.has_store and isinstance(config.held, Held) for config in launched)
    assert remotes[0].shipper.inspect is check_plain


def test_in_this_process_one_proxy_stands_for_the_manager() -> None:
    assembly = make(0, TrickyStore())
    link = assembly.make_local()
    assert link._keeping is assembly.keeper.keepings[0]
    catalog = assembly.keeper.drafts._shipper.catalog
    reader = assembly.keeper.calls._catalog
    for manager in (assembly._owner, link.proxy):
        assert reader.decode(catalog.dump_durable(manager)) is link.proxy
    with pytest.raises(NotShippable):  # a proxy of another manager
        assembly.keeper.drafts._shipper.take_durable_arguments((make(0).make_local().proxy,), "f")


def test_a_spawned_process_holds_what_the_store_hands_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SQLiteStore, "hand_over", lambda store: ("lock of", store.path))
    assert pickle.loads(pickle.dumps(Held(TrickyStore()))) == ("lock of", "tasks.db")
    monkeypatch.setattr(SQLiteStore, "hand_over", lambda store: None)
    assert pickle.loads(pickle.dumps(Held(TrickyStore()))) is None
