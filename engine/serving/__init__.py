"""How requests reach a slot: the queue and thread of one encoder, and one request's run."""
