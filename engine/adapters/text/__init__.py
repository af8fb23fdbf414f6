"""What adapters of texts share: token ids, texts, and lengths."""
