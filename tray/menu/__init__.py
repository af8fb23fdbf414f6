"""The menu as a value."""
