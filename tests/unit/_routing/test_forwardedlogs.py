"""Log records of workers are handled here, once, whatever the handlers do."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from raising import KINDS

from aioscheduler._routing.forwardedlogs import ForwardedLogs, read_levels
from aioscheduler._transport import wire
from aioscheduler._transport.logrecords import pack_record
from aioscheduler._transport.wire import Kind

LOG = logging.getLogger("tests.forwardedlogs")


class Rig:
    """A supervisor with a process, its pipe and a loop, all in one."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.process: Any = self
        self.pid: int | None = 5
        self.pipe = self
        self.answers: list[Any] = []
        self.flushed = 0
        self.soon: list[tuple[Any, ...]] = []
        me: Any = self
        self.logs = ForwardedLogs(me)

    def send(self, frame: bytes) -> None:
        self.answers += wire.Decoder().feed(frame)

    def flush(self) -> None:
        self.flushed += 1

    def call_soon(self, *call: Any) -> None:
        self.soon.append(call)

    def take(self, records: Any, dropped: Any = 0) -> None:
        loop: Any = self
        self.logs.take(loop, records, dropped)


class Keeps(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.raises: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        if self.raises is not None and record.getMessage() == "bad":
            raise self.raises


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
def handler() -> Iterator[Keeps]:
    handler = Keeps()
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    yield handler
    LOG.propagate = True
    LOG.setLevel(logging.NOTSET)
    LOG.removeHandler(handler)


def packed(message: str, level: int = logging.INFO, name: str = LOG.name) -> bytes:
    record = LOG.makeRecord(name, level, "a.py", 1, message, (), None)
    return pack_record(record, 1, "worker")


def test_records_are_handled_by_the_logger_of_their_name(rig: Rig, handler: Keeps) -> None:
    rig.take([packed("one"), packed("no", logging.DEBUG), packed("two", name=f"{LOG.name}.sub")])
    assert [(record.name, record.msg) for record in handler.records] == [
        (LOG.name, "one"),
        (f"{LOG.name}.sub", "two"),
    ]
    assert rig.answers == [[Kind.LOGGED]]
    assert rig.flushed == 1
    assert not rig.counts


def test_what_was_dropped_is_counted(rig: Rig, handler: Keeps) -> None:
    rig.take([], 5)
    rig.take([packed("one")], 2)
    assert rig.counts == {"logs_dropped": 7}
    assert len(handler.records) == 1


def test_a_process_that_has_ended_is_not_answered(rig: Rig, handler: Keeps) -> None:
    rig.pid = None
    rig.take([packed("its last words")])
    rig.process = None
    rig.take([packed("and more")])
    assert len(handler.records) == 2
    assert not rig.answers


@pytest.mark.parametrize("kind", KINDS)
def test_a_handler_that_raises_harms_nothing(
    rig: Rig, handler: Keeps, capsys: Any, kind: type[BaseException]
) -> None:
    handler.raises = kind("on purpose")
    rig.take([packed("bad"), packed("good")])
    assert [record.msg for record in handler.records] == ["bad", "good"]
    assert rig.answers == [[Kind.LOGGED]]
    said = capsys.readouterr().err
    if issubclass(kind, Exception):
        assert f"{kind.__name__}: on purpose" in said
        assert "Message: 'bad'" in said
        assert not rig.soon
    else:  # the loop ends with it
        ((throw, error),) = rig.soon
        assert error is handler.raises
        with pytest.raises(kind):
            throw(error)


def test_a_filter_or_a_factory_that_raises_harms_nothing(
    rig: Rig, handler: Keeps, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = packed("one"), packed("two")

    def fail(*_: Any) -> Any:
        raise LookupError("on purpose")

    monkeypatch.setattr(LOG, "filters", [fail])
    rig.take([made[0]])
    monkeypatch.setattr(LOG, "filters", [])
    monkeypatch.setattr(logging, "_logRecordFactory", fail)
    rig.take([made[1]])
    said = capsys.readouterr().err
    assert ["LookupError: on purpose" in part for part in said.split("Message: ")[:2]] == [True] * 2
    assert "'one'" in said
    assert "'two'" in said
    assert len(rig.answers) == 2
    monkeypatch.setattr("sys.stderr", None)
    rig.take([made[1]])  # nowhere left to report it


@pytest.mark.parametrize(
    "frame",
    [
        (b"record", 0),
        ({}, 0),
        ([packed("one")], -1),
        ([packed("one")], True),
        ([packed("one")], None),
        ([packed("one"), b"\x90"], 1),
        ([packed("one"), [1]], 1),
    ],
)
def test_what_is_no_log_changes_nothing(rig: Rig, handler: Keeps, frame: tuple[Any, Any]) -> None:
    with pytest.raises(wire.WireError, match="no logs of a worker|no record of a log"):
        rig.take(*frame)
    assert not (handler.records or rig.counts or rig.answers)


def test_the_levels_are_those_that_let_something_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root, "level", logging.INFO)
    monkeypatch.setattr(LOG, "level", logging.DEBUG)
    logging.getLogger(f"{LOG.name}.sub")
    levels = read_levels()
    assert (levels["root"], levels[LOG.name]) == (logging.INFO, logging.DEBUG)
    assert f"{LOG.name}.sub" not in levels
    assert "tests" not in levels  # a placeholder, not a logger
    monkeypatch.setattr(logging.root.manager, "disable", logging.DEBUG)
    levels = read_levels()
    assert (levels["root"], levels[LOG.name]) == (logging.INFO, logging.DEBUG + 1)
    monkeypatch.setattr(logging.root, "level", logging.NOTSET)
    monkeypatch.setattr(logging.root.manager, "disable", 0)
    assert read_levels()["root"] == 1
