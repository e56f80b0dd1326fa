"""Which worker takes a task, and who is told of its end.

Placement, the links (one contract, `link`, whether the schedulers are in this loop or in another
process), and the holders of handles. What users call is above, in the public modules.

Doors: `layout`, `link`, `local`, `placement`, `remote`, `router`, `threadsafe`.
"""
