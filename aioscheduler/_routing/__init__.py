"""Which worker takes a task, and who is told of its end.

Placement, the links (one contract, `link`, whether the schedulers are in another process, or, with
their entries and their crew, in this loop: `local`), the fleet of all of them, and the holders of
handles. What users call is above, in the public modules.

Doors: `fleet`, `lastfailures`, `layout`, `link`, `local`, `placement`, `router`, `settings`.
"""
