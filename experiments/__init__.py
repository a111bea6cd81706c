"""What is measured: Whisper, from sound files to tokens, and the mechanisms that scopes switch on."""
