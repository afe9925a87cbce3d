"""No figures from a broken ledger: every database that was served is proved with verify_ledger."""

from benchmarks.bench import Bench
from benchmarks.processes import Ended
from benchmarks.servers import Database, Stage

SHOWN = 20  # breaches


class Broken(Exception):
    """A ledger does not add up; the message names the first breaches."""


def require_sound(bench: Bench) -> None:
    """Raises Broken. Of a ledger without its seals everything else is still asked."""
    for database in bench.served:
        verify(bench.stage, database, sealed=database not in bench.unsealed)


def verify(stage: Stage, database: Database, *, sealed: bool = True) -> Ended:
    """Raises Broken."""
    ended = stage.manage(database, "verify_ledger", "--no-progress")
    said = [line for line in ended.errors.splitlines() if line]
    found = [line for line in said if sealed or not _is_about_seals(line)]
    if ended.code and found:
        shown = "\n".join(found[:SHOWN])
        raise Broken(f"The ledger of {database.name} is broken: no figures.\n{shown}")
    return ended


def _is_about_seals(line: str) -> bool:
    """The last line of a failed run only counts the breaches that were named before it."""
    return line.startswith(("invariant 7:", "CommandError:"))
