"""The way of requests to a slot: the queue and thread of one encoder, and one request's run."""
