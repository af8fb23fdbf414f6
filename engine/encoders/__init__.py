"""The configured encoders: which share weights, and what is asked of one or of several."""
