"""Benchmarks: methods against each other, on the same degraded pixels, with everything that the figures depend on."""

# entered by being imported
from dip.benchmark import classical, deep, others, trained, zsn2n
from dip.benchmark.methods import Method, find, names, register, register_family, resolved, suffixes
from dip.benchmark.protocols import Protocol
from dip.benchmark.report import report
from dip.benchmark.runs import SCHEMA, plan, run
from dip.benchmark.tasks import Case, Task
from dip.benchmark.tasks import names as task_names
from dip.benchmark.tasks import register as register_task

__all__ = [
    "SCHEMA",
    "Case",
    "Method",
    "Protocol",
    "Task",
    "classical",
    "deep",
    "find",
    "names",
    "others",
    "plan",
    "register",
    "register_family",
    "register_task",
    "report",
    "resolved",
    "run",
    "suffixes",
    "task_names",
    "trained",
    "zsn2n",
]
