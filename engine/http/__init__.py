"""The local HTTP endpoint: what other desktop apps already speak, in front of the engine."""
