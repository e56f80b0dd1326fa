"""The file in which durable tasks outlive the host: what is in it, and what is written when.

`records` has its words and the `Store` protocol, `group` what is to be written next, `writer` the
one thread that touches the file. No task, handle or link is known here: who tells this wing what
becomes of a task is `_routing.keeper`.

Doors: `group`, `records`, `sqlite`, `writer`.
"""
