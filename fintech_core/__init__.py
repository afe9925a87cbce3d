"""Assembly and shared kernel of Fintech Core. Imports none of the four apps."""

from fintech_core.celery import app as celery_app

__all__ = ["celery_app"]
