"""Real PostgreSQL and Valkey for a laptop and for the tests, without Docker and without root.

`python -m fintech_core.embedded` is the command line behind `make run` and `make test`.
Never for production: one machine, no backups, no replicas.
"""

from fintech_core.embedded.errors import EmbeddedError
from fintech_core.embedded.postgres import PostgresServer
from fintech_core.embedded.valkey import ValkeyServer

__all__ = ["EmbeddedError", "PostgresServer", "ValkeyServer"]
