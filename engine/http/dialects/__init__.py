"""The dialects: the request and response shapes of one public API per file or folder; none imports another."""
