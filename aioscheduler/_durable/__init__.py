"""The file in which durable tasks outlive the host: its contents, and when they are written.

`records` and `repeatrecords` define its types and the `Store` protocol, `group` collects what to
write next, `horizon` knows what is in memory, and `writer` is the one thread that touches the file.
`sqlite` is the store: `lock` keeps other hosts out, `schema` makes and checks the file, `columns`,
`values` and `repeatrows` write a batch, `reading`, `parts` and `salvage` read the file, `faults`
names its errors. `offline` is for tools, while no host has the file; `offlinetasks` lists its tasks
for it, and `offlinerecords` defines its types. This wing knows no tasks, handles or links:
`_routing.keeper` reports changes to it.

Doors: `group`, `horizon`, `offline`, `offlinerecords`, `records`, `repeatrecords`, `sqlite`,
`writer`.
"""
