"""The operations: what can be asked of encoders, one file per kind, in no dialect's words."""
