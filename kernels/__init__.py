"""CUDA kernels: one kernel is its source, its binding as a custom op, its reference and its benchmark."""
