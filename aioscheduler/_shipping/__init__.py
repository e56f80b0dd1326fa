"""How a call travels: apart in one process, together in another.

Functions by name or by value, arguments and outcomes exactly as they are, exceptions whatever they
hold: `shipping` and `hostshipping` take calls apart, the catalogs know what both ends speak of by
number, `pickler` and `restore` are the two ends of one pickle. Which worker takes them, and when,
must not be known here.

Doors: `classgarbage`, `failures`, `hostcatalog`, `hostshipping`, `latebound`, `names`, `payloads`,
`propagation`, `refusals`, `shipping`, `workercatalog`.
"""
