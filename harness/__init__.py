"""From a command line to a recorded run."""
