"""One set of weights: its state, its leases and every move between rungs."""
