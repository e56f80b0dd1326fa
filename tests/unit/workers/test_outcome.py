"""How a worker encodes failures, and a host decodes them, both in this process."""

from __future__ import annotations

import socket
import sys
from types import ModuleType
from typing import Any

import faulty
import pytest
from aioscheduler_workers.outcome import encode_failure, encode_refusal, encode_unopened

from aioscheduler._shipping.hostcatalog import HostCatalog
from aioscheduler._shipping.payloads import make_failure
from aioscheduler._shipping.workercatalog import WorkerCatalog
from aioscheduler.errors import RemoteError, RemoteTraceback


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def trip(error: BaseException) -> BaseException:
    return HostCatalog().decode_failure(encode_failure(WorkerCatalog(), raised(error)))


def attributes(error: BaseException) -> dict[str, Any]:
    found: dict[str, Any] = object.__getattribute__(error, "__dict__")
    return found


@pytest.mark.parametrize("error", faulty.GOOD, ids=lambda error: type(error).__name__)
def test_failures_arrive_as_themselves(error: BaseException) -> None:
    back = trip(error)
    assert type(back) is type(error)
    args = vars(BaseException)["args"]
    assert repr(args.__get__(back)) == repr(args.__get__(error))
    assert repr(attributes(back)) == repr(attributes(error))
    assert isinstance(back.__cause__, RemoteTraceback)
    assert "in raised" in str(back.__cause__)


def test_failures_arrive_without_the_attributes_that_cannot_travel() -> None:
    back: Any = trip(faulty.WithLock(3))
    assert (type(back), back.args, back.code) == (faulty.WithLock, ("with a lock", 3), 3)
    assert (type(back.inner), back.inner.code) == (faulty.Described, 2)
    assert back.inner.__notes__ == ["inner"]
    assert not {"lock", "me"} & vars(back).keys()
    circular: Any = trip(faulty.Circular())
    assert circular.me is circular


@pytest.mark.parametrize("error", faulty.NOT, ids=lambda error: type(error).__name__)
def test_a_failure_that_cannot_travel_has_a_stand_in(error: BaseException) -> None:
    back = trip(error)
    assert isinstance(back, RemoteError)
    assert back.type_name == f"faulty.{type(error).__name__}"
    assert "in raised" in back.remote_traceback


def test_a_result_that_cannot_travel_is_a_failure() -> None:
    with socket.socket() as opened:
        with pytest.raises(TypeError) as refusal:
            WorkerCatalog().encode([opened])
        payload = encode_refusal([opened], refusal.value)
    assert "socket" in str(HostCatalog().decode_failure(payload))
    payload = encode_refusal(faulty.NoStr(), SystemExit())
    assert "whose repr raises SystemExit" in str(HostCatalog().decode_failure(payload))


def test_an_error_before_a_task_begins_does_not_end_the_host() -> None:
    for error, kind in ((SystemExit(3), RemoteError), (ImportError("x"), ImportError)):
        payload = encode_unopened(WorkerCatalog(), raised(error))
        assert type(HostCatalog().decode_failure(payload)) is kind


def test_there_is_a_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(error: object) -> str:
        raise MemoryError

    monkeypatch.setattr("aioscheduler_workers.outcome.text_of", no_memory)
    back = HostCatalog().decode_failure(encode_failure(WorkerCatalog(), ValueError()))
    assert isinstance(back, RemoteError)


def test_a_host_that_cannot_read_an_outcome_says_so() -> None:
    host = HostCatalog()
    with pytest.raises(RemoteError, match="cannot be unpickled"):
        host.decode_result(b"\x80\x05nonsense")
    back = host.decode_failure(make_failure("text", WorkerCatalog().pickle(3), ()))
    assert isinstance(back, RemoteError)


def test_attributes_that_the_host_cannot_read_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = ModuleType("a_module_of_the_worker")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("aioscheduler._shipping.names.importable", lambda name: True)
    exec("class Value: pass", module.__dict__)
    error: Any = faulty.WithLock(1)
    error.value = module.__dict__["Value"]()
    payload = encode_failure(WorkerCatalog(), error)
    del module.__dict__["Value"]
    back: Any = HostCatalog().decode_failure(payload)
    assert back.code == 1
    assert "value" not in vars(back)
