"""One adapter per kind of encoder, each through its field's own library."""
