"""Helpers of adapters that read texts: token ids, texts, and lengths."""
