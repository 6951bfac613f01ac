"""The rules of Holdfast, as values and pure functions.

Nothing here does input or output: no clock is read, no random number drawn, no third party imported. Whatever a rule
depends on (``now``, a draw, a database row) is passed in, and whatever it decides is returned as a value that
``storage`` or ``messaging`` applies. import-linter keeps it so.
"""
