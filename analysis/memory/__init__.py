"""Memory stalls: how fast kernels and phases moved bytes, and what held them back.

`memory(trace, account)` reads GPU metrics that nsys sampled, `ncu.read` what Nsight Compute measured, `merge`
puts the two together and `agreement` compares them.
"""

from analysis.memory.measure import Memory, memory, memory_metrics
from analysis.memory.merging import agreement, merge

__all__ = ["Memory", "agreement", "memory", "memory_metrics", "merge"]
