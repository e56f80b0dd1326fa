"""How a call travels: apart in one process, together in another.

Functions by name or by value, arguments and outcomes exactly as they are, exceptions whatever they
hold. Which worker takes them, and when, must not be known here.

Doors: `classgarbage`, `definitions`, `failures`, `names`, `pickling`, `shipping`.
"""
