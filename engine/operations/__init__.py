"""The operations of encoders: values that check themselves, one file per kind, in no dialect's words."""
