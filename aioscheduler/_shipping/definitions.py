"""The log of definitions, written by a host and read by its workers: each travels by value, once.

A line of the log (`definitionlog`) is msgpack: a kind, its number, and the fields.

    [REFERENCE, n, "module:qualname"]         a function that is found by name
    [SPACE, n, module, how, package]          the globals of by-value functions, see `spaces`
    [CODE, n, space, pickle of (code, imports), durable]      its registration, or None
    [GLOBAL, n, space, name, payload]
    [CLASSES, n, payload, first, count]       with numbers of their own, from `first`
    [VALUE, n, payload]                       any callable
    [PATH, n, folders]                        added to sys.path since the host started, in bytes
    [RELOAD, n, module]                       the host has reloaded it
    [OPTIONS, n, ...]                         the fields of `Options`, its `Retry` as a payload
    [FORGET, serial, numbers]                 of lines that nothing uses any more

`hostcatalog` writes them, `workercatalog` reads them; the kinds are defined here. Rules for both:

1. A function's closure and defaults are values and travel with each use; its code is a line. So
   a line of code refers to nothing, and functions that call each other make no cycle.
2. All by-value functions that share globals in the host share them in a worker.
3. Rebound globals are noticed when a by-value function is called: those of all modules, and those
   that it sees itself. A worker remembers what was shipped under a name. While the name still holds
   that, a new value from the host replaces it; a name that the worker has bound itself is never
   overwritten.
4. A change that fails leaves the log and every table as they were.
5. Each worker, and each replacement, is sent the log from its beginning.
6. A value is kept once, however often it is mapped. Values, codes and classes are kept as long as
   something uses them (`Lease`); the last few idle values stay, to be mapped again. Names, and the
   globals of modules, stay: there are only as many as the program has. A namespace of no module
   goes with its program: it is recognised by a mark in it (`spaces.Mark`), and not kept here.
7. The host references its codes and classes weakly. If its program has dropped one that an outcome
   names, it is recreated from its line, as in a worker.
"""

from __future__ import annotations

from .._transport.definitionlog import FORGET

REFERENCE, CODE, GLOBAL, CLASSES, VALUE, SPACE, PATH, RELOAD = range(8)
OPTIONS = FORGET + 1
IMPORTED, MODULE, DETACHED = range(3)
"""How a worker obtains the namespace of a SPACE."""
