"""One public API's request and response shapes per file; none knows another."""
