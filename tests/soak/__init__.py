"""The soak: a real stack under load whose parts are killed at random, and a checker that reads what happened.

::

    plan.py      which fault strikes what and when, drawn from a seed
    faults.py    strikes
    load.py      producers that POST until they have a definite answer
    live.py      clients that record every frame they receive
    handlers.py  what the events do
    history.py   all of it as JSON lines in a folder
    rules.py     the checker: pure functions from a history to violations
    figures.py   counts and times of a history
    broken.py    the negative controls: a stack whose code is broken on purpose
    control.py   runs one
    pausing.py   pauses types of events and resumes them
    rules_*.py   more rules: of operators, of what runs when, and of events that nobody sends
    run.py       one run, from start to verdict
"""
