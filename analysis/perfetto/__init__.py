"""Traces for ui.perfetto.dev: the timeline of host and devices with every gap's cause beside it.

    write(trace, account(trace), "trace.perfetto-trace")

Needs the package `perfetto` (the format's definition and protobuf); nothing here touches the network.
"""

from analysis.perfetto.tracks import write

__all__ = ["write"]
