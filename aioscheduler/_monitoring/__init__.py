"""What is going on, for who looks: counts, CPU, memory, and a socket.

It asks links for what they know, and must not change anything. What is drawn of it is in `top` and
`metrics`.

Doors: `processmeter`, `statscollector`, `statsserver`.
"""
