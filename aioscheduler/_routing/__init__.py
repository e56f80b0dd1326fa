"""Which worker runs a task, and who is notified of its end.

Placement, the links (one contract, `link`, whether the schedulers are in another process or, with
their entries and their runner, in this loop: `local`), the fleet of all links, the listeners of
handles, and the keeper of durable tasks. What users call is above, in the public modules.

Doors: `admission`, `assembly`, `fleet`, `forwardedlogs`, `keeper`, `lastfailures`, `layout`,
`link`, `local`, `placement`, `repeats`, `router`, `settings`, `submission`.
"""
