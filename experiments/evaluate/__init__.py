"""How well a Whisper checkpoint transcribes: words, times, its draft, transformers' own path, odd sounds."""
