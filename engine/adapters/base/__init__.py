"""What adapters share, by the sort of object that they load."""
