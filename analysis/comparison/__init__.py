"""Two or more runs or traces beside each other: what changed, by how much, how surely, and where."""
