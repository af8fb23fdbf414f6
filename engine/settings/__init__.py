"""The settings: one frozen value, how it is read and checked, and the file it lives in."""
