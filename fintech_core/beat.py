"""The scheduler's own Celery application, for `celery -A fintech_core.beat beat`.

Beat sends tasks by their names and runs none, so it imports none, and no model either: it has half
the memory that way.
"""

import os

from celery import Celery, signals
from django.conf import settings
from django.utils.log import configure_logging

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fintech_core.settings")

app = Celery("fintech_core", fixups=[])  # the one for Django imports every app
app.config_from_object("django.conf:settings", namespace="CELERY")


@signals.setup_logging.connect
def _log_like_the_others(**_: object) -> None:
    """Nothing else sets logging up where no app is loaded."""
    configure_logging(settings.LOGGING_CONFIG, settings.LOGGING)
