"""A client of a running Pilotlight, from the standard library alone."""
