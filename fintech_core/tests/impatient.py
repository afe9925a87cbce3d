"""The settings, for tests in which PostgreSQL stands still: nobody waits long for it."""

from fintech_core.settings import *  # noqa: F403

DATABASE_PATIENCE_SECONDS = 2.0
