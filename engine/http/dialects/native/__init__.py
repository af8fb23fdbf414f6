"""Pilotlight's own dialect: one file per kind of encoder."""
