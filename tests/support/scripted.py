"""A script, its host and its worker, which share one process."""

from __future__ import annotations

import asyncio
import gc
import sys
import types
from typing import Any, Self

import pytest

from aioscheduler._shipping.hostcatalog import HostCatalog
from aioscheduler._shipping.hostshipping import HostShipper
from aioscheduler._shipping.shipping import open_call
from aioscheduler._shipping.workercatalog import WorkerCatalog
from aioscheduler._transport import wire
from aioscheduler._transport.definitionlog import FORGET_AT, Reader
from aioscheduler.errors import NotShippable


class Script:
    """A script that no other process can import, a host that has it, and a worker.

    Args:
        source: The source of the script, whose names are attributes of this.
    """

    def __init__(self, source: str) -> None:
        self.module = types.ModuleType("script_of_mine")
        self._source = source
        self.host = HostShipper(HostCatalog())
        self.begin()

    def __enter__(self) -> Self:
        sys.modules[self.module.__name__] = self.module
        self.run(self._source)
        return self

    def __exit__(self, *exc_info: object) -> None:
        del sys.modules[self.module.__name__]

    def begin(self) -> None:
        """Begin a worker process, the first or the next."""
        self.worker = WorkerCatalog()
        self.modules: dict[str, Any] = {}
        self.reader = Reader(self.host.catalog.log)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)

    def run(self, code: str) -> None:
        """Run more code in the script's namespace."""
        exec(code, self.module.__dict__)

    def forget(self) -> None:
        """Make host and worker forget all unused definitions, however few they are."""
        log = self.host.catalog.log
        gc.collect()
        self.host.catalog.forget_unused()
        for _ in range(FORGET_AT):
            log.retire(log.write(0))
        self.host.catalog.look_after()
        for _ in range(8):  # a forgotten line releases those that it names
            self.tell()
            self.host.catalog.forget_unused()
            log.weight += FORGET_AT + len(self.reader.known)

    def tell(self) -> None:
        """Make the worker read pending definitions."""
        for line in self.reader.read():
            self.worker.read(line)
        self.reader.confirm(self.worker.confirmed)

    def trip(self, coro: Any) -> Any:
        """Ship a coroutine, run it in the worker, and return its result as the host gets it."""
        try:
            call = self.host.take(coro)
        except NotShippable:
            coro.close()
            raise
        return self.host.catalog.decode_result(self.run_there(call))

    def run_there(self, call: Any) -> Any:
        """Run a call in the worker, and return the payload of its result."""
        ours = {self.module.__name__: self.module}
        with pytest.MonkeyPatch.context() as patch:
            for name in ours:
                patch.delitem(sys.modules, name)
                if name in self.modules:
                    patch.setitem(sys.modules, name, self.modules[name])
            self.tell()
            self.modules = {name: sys.modules[name] for name in ours if name in sys.modules}
            number, payload, *_ = wire.unpack(wire.pack(call))
            called, args, kwargs = open_call(self.worker, number, payload)
            value = called(*args, **kwargs)
            if asyncio.iscoroutine(value):
                value = asyncio.run(value)
            return self.worker.encode(value)
