"""CUDA kernels. A kernel is its source, the Python that checks and launches it, and a reference in plain
torch; headers that only one source includes are in a folder of its name."""
