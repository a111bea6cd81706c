"""What the GPU was doing, and why it was idle: nsys export in, tables and figures out.

    from analysis import Trace, account
    with Trace.open("trace.sqlite") as trace:
        print(account(trace).phases)

The names below are imported on first use, so that `python -m analysis --help` needs no pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from analysis.engine.collection import postponed

if TYPE_CHECKING:
    from analysis.accounting.account import Account, account
    from analysis.errors import TraceError
    from analysis.reading.trace import Trace

__all__ = ["Account", "Trace", "TraceError", "account"]

_HOME = {
    "Account": "analysis.accounting.account",
    "Trace": "analysis.reading.trace",
    "TraceError": "analysis.errors",
    "account": "analysis.accounting.account",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with postponed():
        return getattr(import_module(_HOME[name]), name)
