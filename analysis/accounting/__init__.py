"""Where the time of a trace went: the `gaps` between work, and their `causes`, by `phases` and `kernels`."""
