"""Token ids of OpenAI's embedding models as texts, decoded by tiktoken, which is an extra."""
