"""Memory stalls: how fast kernels and phases moved bytes, and what held them back.

`memory(trace, account)` reads GPU metrics that nsys sampled, `ncu.read` what Nsight Compute measured, `merge`
puts the two together and `agreement` compares them; `aligned` gives the samples themselves.
"""

from analysis.memory.measure import Memory, aligned, memory, memory_metrics
from analysis.memory.merging import agreement, merge

__all__ = ["Memory", "agreement", "aligned", "memory", "memory_metrics", "merge"]
