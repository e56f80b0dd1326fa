"""The file in which durable tasks outlive the host: what is in it, and what is written when.

`records` has its words and the `Store` protocol, `group` what is to be written next, `writer` the
one thread that touches the file. `sqlite` is the store: `lock` keeps other hosts from it, `schema`
makes and checks the file, `columns` and `repeatrows` write a batch, `reading` and `salvage` read what
there is, `faults` says what can go wrong; `horizon` knows which tasks are in memory. `offline` is for tools, while no host is at work. No task, handle or link is
known here: who tells this wing what becomes of a task is `_routing.keeper`.

Doors: `group`, `horizon`, `offline`, `records`, `repeatrows`, `sqlite`, `writer`.
"""
