"""The places of encoders on devices: decides which stay and which step down, and has slots move them."""
