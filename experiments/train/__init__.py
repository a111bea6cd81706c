"""How the bundled checkpoint is made: synthetic speech, training, evaluation."""
