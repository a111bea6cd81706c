"""Where the model and the clips are that ship with the project."""

from harness.environment import PROJECT

CHECKPOINT = PROJECT / "experiments" / "checkpoint"
HELD_OUT = PROJECT / "experiments" / "clips" / "heldout"  # the model never heard them
