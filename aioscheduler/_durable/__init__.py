"""The file in which durable tasks outlive the host: what is in it, and what is written when.

`records` and `repeatrecords` have its words and the `Store` protocol, `group` what is to be written
next, `horizon` what is in memory, `writer` the one thread that touches the file. `sqlite` is
the store: `lock` keeps other hosts from it, `schema` makes and checks the file, `columns`, `values`
and `repeatrows` write a batch, `reading` and `salvage` read what there is, `faults` says what can
go wrong. `offline` is for tools, while no host is at work; `offlinetasks` lists for it, in the
words of `offlinerecords`. No task, handle or link is known here: who tells this wing what becomes
of a task is `_routing.keeper`.

Doors: `group`, `horizon`, `offline`, `offlinerecords`, `records`, `repeatrecords`, `sqlite`,
`writer`.
"""
