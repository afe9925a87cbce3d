"""The reference: PostgreSQL's own pgbench, TPC-B-like, on the same server."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from benchmarks.processes import Ended, ProgramError, run
from benchmarks.servers import Database
from fintech_core.embedded.binaries import postgres_folder

CLIENTS = 8
_RATE = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)


@dataclass(frozen=True)
class Reference:
    """A database that pgbench has filled with `scale` branches of 100,000 accounts each."""

    database: Database
    scale: int

    @classmethod
    def prepare(cls, database: Database, scale: int) -> "Reference":
        made = cls(database, scale)
        made._pgbench("-i", "-q", "-s", str(scale))
        return made

    def transactions_per_second(self, seconds: float) -> float:
        """Runs for whole seconds, one at least. Raises ProgramError when pgbench fails."""
        ended = self._pgbench(
            "-b", "tpcb-like", "-s", str(self.scale), "-M", "prepared", "-c", str(CLIENTS),
            "-T", str(max(1, round(seconds))),
        )  # fmt: skip
        found = _RATE.search(ended.output)
        if found is None:
            raise ProgramError(f"pgbench named no rate:\n{ended.output}")
        return float(found[1])

    def _pgbench(self, *arguments: str) -> Ended:
        ended = run([program(), *arguments], self._environment())
        ended.require("pgbench failed")
        return ended

    def _environment(self) -> Mapping[str, str]:
        """The address in variables: arguments would show the password to everybody."""
        address = urlsplit(self.database.environment["DATABASE_OWNER_URL"])
        return {
            **self.database.environment,
            "PGHOST": address.hostname or "",
            "PGPORT": str(address.port or 5432),
            "PGUSER": unquote(address.username or ""),
            "PGPASSWORD": unquote(address.password or ""),
            "PGDATABASE": self.database.name,
        }


def program() -> str:
    """pgbench beside the server's programs, else in PATH. Raises ProgramError without one."""
    beside = postgres_folder() / "pgbench"
    found = str(beside) if beside.is_file() else shutil.which("pgbench")
    if found is None:
        raise ProgramError("pgbench is not here; it comes with PostgreSQL's server packages.")
    return found
