"""Texts as models read them: token ids, limits, padding, and batches."""
