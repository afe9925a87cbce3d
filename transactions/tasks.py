"""This app's jobs. Each may run twice, also at once: the services see to it."""

import logging

from celery import shared_task

from transactions import checkpoints
from transactions.services import TransactionService

logger = logging.getLogger(__name__)


@shared_task(name="transactions.expire_holds")
def expire_holds(**_newer: object) -> None:
    """Gives back what was not captured in time. Nothing depends on it but the payer's money."""
    TransactionService.expire_holds()


@shared_task(name="transactions.checkpoint_ledger")
def checkpoint_ledger(**_newer: object) -> None:
    """Signs where the ledger stands, if it moved. A refusal fails the task: staff must look."""
    try:
        checkpoints.take()
    except checkpoints.CheckpointInProgress:
        logger.info("another checkpoint is being taken")
