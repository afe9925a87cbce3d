"""This app's jobs."""

from celery import shared_task

from wallet import services


@shared_task(name="wallet.delete_old_debits")
def delete_old_debits(**_newer: object) -> None:
    """Safe to run twice, and beside itself: each batch skips what another one holds."""
    services.delete_old_debits()
