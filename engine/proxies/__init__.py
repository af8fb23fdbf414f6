"""What Python callers hold: one lazy object per encoder, which loads at its first use and never before.

Building a proxy, `repr`, `loaded`, `peek()` and the pure maths (`similarity`, `nearest`) load nothing.
"""
