"""Whisper beside its peers: other implementations and every scope, one after the other, on the same input."""
