"""Statistics of a running manager: counts, CPU, memory, and a socket to read them.

It reads from the links, and must not change anything. The statistics are displayed by `top` and
exported by `metrics`.

Doors: `processmeter`, `statscollector`, `statsserver`.
"""
