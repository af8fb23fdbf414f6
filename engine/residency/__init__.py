"""Which encoders may stay on a device and who makes room: decides and asks, but moves nothing itself."""
