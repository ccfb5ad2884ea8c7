"""The load driver: drives a running TaskFlow over HTTP, within bounds, and says how it did.

Locust does the driving. Its gevent patches the whole interpreter, so it only ever runs in a process of
its own (`python -m taskflow.load`); `drive` starts one and waits for its report.
"""

from taskflow.load.ledger import Ledger
from taskflow.load.plan import SCENARIOS, LoadError, LoadPlan
from taskflow.load.process import drive
from taskflow.load.report import LoadReport, Timing

__all__ = ["SCENARIOS", "Ledger", "LoadError", "LoadPlan", "LoadReport", "Timing", "drive"]
