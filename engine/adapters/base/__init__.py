"""Base classes of adapters, by the sort of object that they load."""
