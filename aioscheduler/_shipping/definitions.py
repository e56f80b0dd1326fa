"""What travels by value, once: the log of definitions that a host writes and its workers read.

A line of the log (`definitionlog`) is msgpack: a kind, its number, and the fields.

    [REFERENCE, n, "module:qualname"]         a function that is found by name
    [SPACE, n, module, how, package]          the globals of by-value functions, see `spaces`
    [CODE, n, space, pickle of (code, imports), durable]      as what it is registered, or None
    [GLOBAL, n, space, name, payload]
    [CLASSES, n, payload, first, count]       with numbers of their own, from `first`
    [VALUE, n, payload]                       any callable
    [PATH, n, folders]                        of modules, in bytes, added since the host has begun
    [RELOAD, n, module]                       the host has loaded it again
    [OPTIONS, n, ...]                         the fields of `Options`, its `Retry` as a payload
    [FORGET, serial, numbers]                 of lines that nothing uses any more

Who writes them is `hostcatalog`, who reads them `workercatalog`; both know them by the words here.
Rules for both:

1. A function's closure and defaults are values and travel with each use; its code is a line. So
   a line of code refers to nothing, and functions that call each other make no circle.
2. All by-value functions that share globals in the host share them in a worker.
3. What was bound anew is noticed when a function is called that sees the namespace, or any module.
   A worker remembers what was shipped under a name. While the name still holds that, what the
   host has rebound takes its place; what the worker has bound itself is never overwritten.
4. A change that fails leaves the log and every table as they were.
5. Each worker, and each replacement, is sent the log from its beginning.
6. A value is there once, however often it is mapped. Values, codes and classes are there as long
   as something uses them (`Lease`); the last few idle values stay, to be mapped again. Names, and
   the globals of modules, stay: there are as many as the program has. A namespace that is no
   module's goes with its program: it is known by a mark in it (`spaces.Mark`), and not kept here.
7. The host knows its codes and classes weakly. One that its program has dropped, and an outcome
   names, is made again from its line, as in a worker.
"""

from __future__ import annotations

from .._transport.definitionlog import FORGET

REFERENCE, CODE, GLOBAL, CLASSES, VALUE, SPACE, PATH, RELOAD = range(8)
OPTIONS = FORGET + 1
IMPORTED, MODULE, DETACHED = range(3)
"""Of a SPACE: how a worker comes by its namespace."""
