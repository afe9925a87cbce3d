"""This app's jobs."""

from celery import shared_task

from users import services


@shared_task(name="users.delete_dead_sessions")
def delete_dead_sessions(**_newer: object) -> None:
    """Safe to run twice, and beside itself: each batch skips what another one holds."""
    services.delete_dead_sessions()
