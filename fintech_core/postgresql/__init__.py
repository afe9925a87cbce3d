"""Django's backend for PostgreSQL; health checks and BEGIN cost no round trip of their own."""
