"""The moves of weights to the device that computes and back, whole or block by block."""
