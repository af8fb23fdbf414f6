"""Adapters: one library's kind of model behind one protocol.

With `weights/` and `devices/` the only place that knows torch, spaCy and the like. Importing this package imports none
of them.
"""
