"""One loop: what waits, when it is due, and the engine that starts it.

What lives here serves in this process and in a worker alike, and takes what it runs as it is: no
bytes, no handles, no processes. Threads are here where they ask for the loop.

Doors: `alarm`, `clock`, `coroutines`, `ending`, `engine`, `few`, `holdback`, `lateness`,
`lifespan`, `loopthread`, `order`, `pace`, `running`, `shiftedclock`, `states`, `timers`,
`unheard`.
"""
