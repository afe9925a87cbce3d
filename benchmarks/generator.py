"""Which program makes the load: the one place that decides it."""

from importlib.metadata import version

from benchmarks import wrk
from benchmarks.load import Load, Outcome, put_by_locust
from benchmarks.servers import Web


def put(load: Load, web: Web) -> Outcome:
    """Plain load by wrk, if it is here; else, and for the rest, by locust."""
    plain = load.is_plain and wrk.program() is not None
    return wrk.put(load, web) if plain else put_by_locust(load, web)


def is_fast() -> bool:
    """Whether the load costs next to nothing beside what it measures."""
    return wrk.program() is not None


def describe() -> str:
    """For the report: figures of different programs are not to be compared."""
    locust = f"locust {version('locust')}"
    return f"wrk; {locust} for batches, pace and counts" if wrk.program() else locust
