"""One loop: pending entries, their due times, and the engine that starts them.

These modules serve in the host and in workers alike, and entries are opaque to them: no bytes, no
handles, no processes. Threads appear only where they call the loop.

Doors: `alarm`, `clock`, `coroutines`, `ending`, `engine`, `few`, `holdback`, `lateness`,
`lifespan`, `loopthread`, `order`, `pace`, `running`, `shiftedclock`, `states`, `timers`,
`unheard`.
"""
