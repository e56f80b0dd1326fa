"""How a call travels: taken apart in one process, put together in another.

Functions travel by name or by value, arguments and outcomes exactly, exceptions whatever they hold.
`shipping` and `hostshipping` take calls apart, the catalogs number what both ends know, `pickler`
and `restore` write and read pickles. Which worker gets a call, and when, must not be known here.

Doors: `classgarbage`, `failures`, `hostcatalog`, `hostshipping`, `latebound`, `names`, `payloads`,
`propagation`, `refusals`, `shipping`, `workercatalog`.
"""
