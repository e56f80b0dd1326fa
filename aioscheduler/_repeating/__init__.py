"""What repeats: which of a rule's times are run, which are skipped, and when to look next.

`terms` is what a repeat was asked for, `nominal` asks its rule, and `policy` decides. It is pure:
the present is handed in, and what is to be run is handed back. No task, timer, store or handle is
known here.

Doors: `policy`, `terms`.
"""
