"""A log record arrives as it was made, or says which part could not be formatted."""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
from enum import StrEnum
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raising import NoCause, NoText

from aioscheduler._transport import wire
from aioscheduler._transport.logrecords import (
    _FIELDS,
    LONGEST,
    LONGEST_NAME,
    MOST_EXTRAS,
    make_record,
    pack_record,
    unpack_record,
)
from aioscheduler.errors import RemoteTraceback

LOG = logging.getLogger("tests.logrecords")


def make(message: object = "hello", *args: Any, **kwargs: Any) -> logging.LogRecord:
    fields = {"exc_info": None, "func": "make", "extra": None, "sinfo": None, **kwargs}
    return LOG.makeRecord(LOG.name, logging.INFO, "/a/b/some.py", 12, message, args, **fields)


def travel(record: logging.LogRecord) -> logging.LogRecord:
    return make_record(unpack_record(pack_record(record, 7, "a process")))


def raised(error: BaseException) -> Any:
    try:
        raise error
    except BaseException:
        return sys.exc_info()


def test_a_record_says_in_the_host_what_it_said_in_the_worker() -> None:
    record = make("%s is %d", "one", 1, exc_info=raised(LookupError("é")), sinfo="a stack")
    record.created -= 3600.5
    record.taskName = "Task-5"
    before = vars(record).copy()
    arrived = travel(record)
    assert vars(record) == before
    pattern = "%(name)s %(levelname)s %(message)s %(filename)s %(module)s %(lineno)d %(funcName)s"
    formatter = logging.Formatter(pattern + "%(processName)s %(threadName)s %(taskName)s")
    assert formatter.format(arrived) == formatter.format(record)
    assert "LookupError: é" in formatter.format(arrived)
    assert arrived.created == record.created
    assert arrived.msecs == pytest.approx(record.created % 1 * 1000, abs=1)
    assert arrived.thread == threading.get_ident()
    assert arrived.process == record.process
    assert arrived.relativeCreated == pytest.approx(make().relativeCreated - 3.6e6, abs=6e4)
    assert arrived.args == ()


def test_a_record_without_a_process_is_given_that_of_the_worker() -> None:
    record = make()
    record.process = record.processName = record.thread = record.threadName = None
    arrived = travel(record)
    assert (arrived.process, arrived.processName) == (7, "a process")
    assert (arrived.thread, arrived.threadName) == (None, None)


def test_of_the_extras_those_travel_that_are_plain() -> None:
    plain = {"a": None, "b": True, "c": -5, "d": 2.5, "e": "text", "f": (1 << 63) - 1}
    odd = {"g": 1 << 63, "h": [1], "i": object(), "j": b"bytes", "k": logging.INFO.__class__}
    record = make(extra={**plain, **odd})
    record.asctime = record.message = "of another handler's formatter"
    arrived = vars(travel(record))
    assert plain == {key: arrived[key] for key in plain}
    assert not {*odd, "asctime", "message"} & arrived.keys()


def test_a_traceback_that_was_formatted_is_kept() -> None:
    record = make()
    record.exc_text = "of another process"
    assert travel(record).exc_text == "of another process"
    record.exc_info = 5  # type: ignore[assignment]
    assert travel(record).exc_text == "a traceback could not be formatted: TypeError"


class Unwritten:
    """Has neither a str nor a repr."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __repr__(self) -> str:
        raise self.error


@pytest.mark.parametrize("error", [ValueError, RecursionError, SystemExit])
def test_a_message_that_cannot_be_formatted_says_so(error: type[BaseException]) -> None:
    message = travel(make("%s", Unwritten(error))).getMessage()
    name = error.__name__
    assert message == f"a message of /a/b/some.py, line 12, could not be formatted: {name}"
    message = travel(make("%d and %d", 1)).getMessage()
    assert message == "'%d and %d' % (1,) could not be formatted: TypeError"


def test_an_exception_that_cannot_be_asked_harms_nothing() -> None:
    for kind in (NoCause, NoText):
        text = travel(make(exc_info=raised(kind()))).exc_text
        assert text is not None
        assert "raise error" in text or text.startswith("a traceback could not be formatted: ")


def test_what_is_long_is_cut_and_fits_into_a_frame() -> None:
    record = make("x" * LONGEST + "y" * LONGEST, sinfo="\udc80" * 10**6)
    record.exc_text = "é" * 10**6
    record.pathname = record.threadName = "\U0001f600" * 10**6
    record.__dict__ |= {f"{n}" + "\udc80" * 9999: "\udc80" * 9999 for n in range(99)}
    packed = pack_record(record, 1, "")
    assert len(packed) < wire.MAX_FRAME * 3 // 4
    arrived = make_record(unpack_record(packed))
    half = LONGEST // 2
    assert arrived.msg == "x" * half + " […] " + "y" * half
    assert arrived.threadName == "\U0001f600" * 512 + " […] " + "\U0001f600" * 512
    usual = logging.LogRecord("", 0, "", 0, "", (), None)  # libraries change the record factory
    assert len(vars(arrived).keys() - vars(usual).keys()) == MOST_EXTRAS
    assert LONGEST_NAME == 1024


@given(st.text(), st.integers(), st.floats(allow_nan=False), st.text())
def test_whatever_is_logged_can_be_read(text: str, level: int, number: float, key: str) -> None:
    record = make(text)
    record.levelno = level
    vars(record).setdefault(key, number)
    arrived = travel(record)
    assert arrived.getMessage() == wire.text(text)
    assert arrived.levelno == max(-(1 << 63), min(level, (1 << 63) - 1))
    if key not in vars(make()):
        assert vars(arrived)[wire.text(key)] == number


class Color(StrEnum):
    RED = "red"


def test_an_extra_of_a_class_that_is_made_of_a_plain_one_is_that() -> None:
    extra = {"color": Color.RED, "status": HTTPStatus.OK, "flag": True, "big": 1 << 70}
    arrived = vars(travel(make(extra=extra)))
    assert (arrived["color"], arrived["status"], arrived["flag"]) == ("red", 200, True)
    assert [type(arrived[name]) for name in ("color", "status", "flag")] == [str, int, bool]
    assert "big" not in arrived


def test_a_handler_that_looks_at_the_exception_finds_the_text() -> None:
    arrived = travel(make(exc_info=raised(LookupError("no user"))))
    assert arrived.exc_info is not None
    kind, error, trace = arrived.exc_info
    assert (kind, trace) == (RemoteTraceback, None)
    assert "LookupError: no user" in str(error)
    assert logging.Formatter().format(arrived).count("no user") == 1
    assert travel(make()).exc_info is None


@pytest.mark.parametrize("created", [math.inf, -math.inf, math.nan])
def test_a_time_that_no_clock_shows_is_the_present(created: float) -> None:
    before = time.time()
    assert before <= travel(logging.makeLogRecord({**vars(make()), "created": created})).created
    assert travel(make(extra={"ratio": math.inf})).ratio == math.inf  # type: ignore[attr-defined]


class OddText(str):
    """A str whose methods misbehave, and so does the result of `str()`."""

    def keep(self, *_: object) -> Any:
        return self

    def decode(self, *_: object) -> Any:
        return 5

    __str__ = __getitem__ = __mod__ = encode = keep  # type: ignore[assignment]
    __repr__ = __format__ = __len__ = decode


class OddNumber(int):
    def __int__(self) -> int:
        return True

    def __float__(self) -> float:
        return math.nan


class Refuses:
    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def refuse(self, *_: object) -> Any:
        raise self.error

    __str__ = __repr__ = __int__ = __float__ = __bool__ = refuse


TEXTS = st.text(st.characters(exclude_categories=()), max_size=9)
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers() | st.integers(-(1 << 99), 1 << 99),
    st.floats(),
    TEXTS,
    TEXTS.map(OddText),
    st.integers().map(OddNumber),
    st.sampled_from((logging.LogRecord, b"bytes", [1], 10**400, "x" * 10**5, sys.version_info)),
    st.sampled_from((ValueError, SystemExit)).map(Refuses),
)
STANDARD = st.sampled_from([*_FIELDS, *sorted(vars(make()))])


@given(
    st.dictionaries(STANDARD, ODD, max_size=3),
    st.dictionaries(TEXTS | TEXTS.map(OddText) | STANDARD.map(OddText) | st.integers(), ODD),
)
def test_the_host_takes_whatever_a_worker_packs(fields: dict[str, Any], rest: Any) -> None:
    record = make()
    record.__dict__ |= rest | fields
    try:
        packed = pack_record(record, 7, "a process")
    except BaseException:  # it would be dropped, and counted
        return
    made = make_record(unpack_record(packed))
    assert type(made.getMessage()) is str


def test_a_text_of_an_odd_class_travels_as_what_it_is() -> None:
    record = make(OddText("its text"), extra={"odd": OddText("its value"), "big": OddNumber(5)})
    record.name = record.threadName = OddText("a name")
    arrived = travel(record)
    assert (arrived.getMessage(), arrived.name, arrived.threadName) == (
        *("its text", "a name", "a name"),
    )
    assert (vars(arrived)["odd"], vars(arrived)["big"]) == ("its value", 5)


def test_the_host_has_records_made_as_its_own_are(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(logging.LogRecord):
        request = "none"

    monkeypatch.setattr(logging, "_logRecordFactory", Own)
    record = make()
    assert type(record) is Own
    assert travel(record).request == "none"  # type: ignore[attr-defined]
    record.request = "five"
    assert travel(record).request == "five"  # type: ignore[attr-defined]


RIGHT: list[Any] = wire.unpack(pack_record(make(extra={"a": 1}), 1, "p"))


WRONG = [
    b"",
    b"\xc1",
    wire.pack(None),
    wire.pack([]),
    wire.pack(RIGHT[:5]),
    wire.pack(RIGHT[:-1]),  # an extra without a value
    wire.pack([*RIGHT[:4], float("nan"), *RIGHT[5:]]),
    wire.pack([*RIGHT[:-2], "args", 5]),
    wire.pack([*RIGHT[:-2], 5, "key"]),
    wire.pack([*RIGHT, [1], "unhashable"]),
    wire.pack([*RIGHT, "a list", [1]]),
    *(wire.pack([*RIGHT[:n], [], *RIGHT[n + 1 :]]) for n in range(len(_FIELDS))),
    wire.pack([*RIGHT[:1], True, *RIGHT[2:]]),
    "text",
    None,
]


@pytest.mark.parametrize("packed", WRONG, ids=map(str, range(len(WRONG))))
def test_what_is_no_record_is_refused(packed: Any) -> None:
    with pytest.raises(wire.WireError, match="no record of a log"):
        unpack_record(packed)
    assert travel(make()).getMessage() == "hello"
