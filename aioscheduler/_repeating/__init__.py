"""Repeats: which times of a rule are run, which are skipped, and when to look next.

`terms` holds the arguments of a repeat, `nominal` asks its rule, and `policy` decides. All of it is
pure: the present is an argument, and the runs to enter are returned. This wing knows no tasks,
timers, stores or handles.

Doors: `policy`, `terms`.
"""
