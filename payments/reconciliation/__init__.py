"""Reconciliation: a gateway's report for a day, our orders, and the clearing accounts' entries.

The report is written to a temporary file first, while no lock is held and no database transaction
is open; then it is loaded, compared and its run finished in one database transaction. A run that is
cut short has changed nothing.
"""

import csv
import io
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import IO
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now
from rest_framework.exceptions import ErrorDetail, ValidationError

from fintech_core.database import database_time, execute, give_time
from fintech_core.exceptions import InvalidState
from fintech_core.logs import scrub
from payments import gateways
from payments.exceptions import GatewayUnavailable, NotFound
from payments.gateways.base import ReportLine
from payments.models import ReconciliationBreak, ReconciliationRun
from payments.models.reconciliation import ERROR_MAX_LENGTH
from payments.reconciliation import matching, reports
from payments.reconciliation.reports import BadReport
from users.models import User
from users.services import require_staff

__all__ = [
    "FIRST_DAY",
    "PERMISSION",
    "TOO_EARLY",
    "BadReport",
    "CouldNotRun",
    "reconcile",
    "reconcile_missed_days",
    "resolve",
]

logger = logging.getLogger(__name__)

PERMISSION = "payments.reconcile"
LEASE = timedelta(hours=1)  # of a run: none takes so long
# A report of a million lines needs more than a call may take; less than the lease, though.
MATCHING_SECONDS_MAX = 1200
# The daily job is killed earlier than that (see its task). It begins no other day after so long,
# and gives PostgreSQL so long for each statement; what needs more is for the command.
BEGINNING_SECONDS_MAX = 120
JOB_SECONDS_MAX = 240
FIRST_DAY = date(2000, 1, 1)
TOO_EARLY = "No gateway has reports of days before 2000."
_DONE = (ReconciliationRun.Status.MATCHED, ReconciliationRun.Status.BREAKS)
Progress = Callable[[int], object]


class CouldNotRun(Exception):
    """Nothing was compared; the run is on record as failed, and the message says why."""


def reconcile(
    *,
    gateway: str,
    day: date,
    csv_file: IO[bytes] | None = None,
    by: User | None = None,
    progress: Progress = lambda lines: None,
    seconds_max: int = MATCHING_SECONDS_MAX,
) -> ReconciliationRun:
    """Compare the gateway's report for a day (UTC) with our books; the finished run.

    Without `csv_file` the gateway is asked, for the day, for those days around it that have not
    been reconciled themselves, and for the earlier days whose reports may have changed since.
    `progress` is told of each thousand lines; no statement may take longer than `seconds_max`.
    Raises NotFound for a gateway that is not configured, InvalidState for a day before 2000 or not
    over yet and while another run of this gateway goes on, and CouldNotRun. `by` needs
    `payments.reconcile`: else PermissionDenied.
    """
    if by is not None:
        require_staff(by, PERMISSION)
    if day < FIRST_DAY:
        raise InvalidState(TOO_EARLY)
    if day >= _today():
        raise InvalidState(f"{day} is not over yet (UTC).")
    if csv_file is None:
        gateways.gateway_named(gateway)
    elif gateway not in settings.PAYMENT_GATEWAYS:
        raise NotFound("There is no such gateway here.")
    run = _begin(gateway, day, csv_file, by)
    try:
        _run(run, csv_file, progress, seconds_max)
    except (BadReport, GatewayUnavailable) as reason:
        _fail(run, str(reason))
        raise CouldNotRun(str(reason)) from reason
    except BaseException as exc:  # Ctrl-C too: a run that seems to go on holds up the others
        _fail(run, scrub(f"{type(exc).__name__}: {exc}"))
        raise
    run.refresh_from_db()
    return run


def reconcile_missed_days() -> int:
    """Run each of the last days, for each gateway, for which no run has succeeded; how many did.

    A gateway that does not answer is asked again at the next call, and so is what there is no time
    left for. What failed before comes last, lest the others never have their turn. Raises
    SoftTimeLimitExceeded.
    """
    begun, done = time.monotonic(), 0
    for gateway, day in sorted(_missed_days(), key=lambda missed: _failures(*missed)):
        done += _try(gateway, day)
        if time.monotonic() - begun > BEGINNING_SECONDS_MAX:
            break
    return done


@transaction.atomic
def resolve(*, by: User, break_id: UUID, note: str) -> ReconciliationBreak:
    """Put down for good why a break is none any more.

    Raises PermissionDenied unless `by` is active staff with `payments.reconcile`, NotFound,
    InvalidState once it has ended, and ValidationError for an empty note.
    """
    require_staff(by, PERMISSION)
    broken = ReconciliationBreak.objects.select_for_update(no_key=True).filter(pk=break_id).first()
    if broken is None:
        raise NotFound("There is no such break.")
    if broken.status != ReconciliationBreak.Status.OPEN:
        raise InvalidState("The break has ended already.")
    if not (note := note.strip()):
        raise ValidationError({"note": [ErrorDetail("Say why.", code="blank")]})
    broken.status, broken.note, broken.resolved_by = (
        ReconciliationBreak.Status.RESOLVED,
        note,
        by,
    )
    broken.ended_at = database_time()
    broken.save(update_fields=["status", "note", "resolved_by", "ended_at"])
    return broken


def _today() -> date:
    return datetime.now(tz=UTC).date()


def _source(csv_file: IO[bytes] | None) -> ReconciliationRun.Source:
    return ReconciliationRun.Source.GATEWAY if csv_file is None else ReconciliationRun.Source.CSV


def _done_from(gateway: str, day: date) -> str | None:
    """Where the day's lines are from; None: no run of the day has succeeded."""
    runs = ReconciliationRun.objects.filter(gateway=gateway, day=day, status__in=_DONE)
    return runs.order_by("-pk").values_list("source", flat=True).first()


def _missed_days() -> Iterator[tuple[str, date]]:
    for gateway in gateways.available():
        for ago in range(settings.RECONCILIATION_DAYS, 0, -1):
            day = _today() - timedelta(days=ago)
            if _done_from(gateway, day) is None:
                yield gateway, day


def _failures(gateway: str, day: date) -> int:
    failed = ReconciliationRun.Status.FAILED
    return ReconciliationRun.objects.filter(gateway=gateway, day=day, status=failed).count()


def _try(gateway: str, day: date) -> bool:
    try:
        reconcile(gateway=gateway, day=day, seconds_max=JOB_SECONDS_MAX)
    except (CouldNotRun, InvalidState) as reason:
        logger.error(
            "not reconciled", extra={"gateway": gateway, "day": str(day), "reason": str(reason)}
        )
        return False
    except SoftTimeLimitExceeded:  # what is left of the task's time is for ending it
        raise
    except Exception:  # on record by now; the other gateways are not to wait for it
        logger.exception("not reconciled", extra={"gateway": gateway, "day": str(day)})
        return False
    return True


@transaction.atomic
def _begin(
    gateway: str, day: date, csv_file: IO[bytes] | None, by: User | None
) -> ReconciliationRun:
    """The only run of the gateway; one that should be over by far was cut short, and is put down as
    failed. Should it live on after all, it cannot finish: what it compared is rolled back."""
    _lock(f"payments_reconciliation:{gateway}")
    running = ReconciliationRun.objects.filter(
        gateway=gateway, status=ReconciliationRun.Status.RUNNING
    )
    running.filter(started_at__lt=Now() - LEASE).update(
        status=ReconciliationRun.Status.FAILED, error="It was cut short.", finished_at=Now()
    )
    if running.exists():
        raise InvalidState("Another run of this gateway is going on.")
    return ReconciliationRun.objects.create(
        gateway=gateway, day=day, source=_source(csv_file), requested_by=by
    )


def _lock(name: str) -> None:
    """Until the database transaction ends."""
    execute("SELECT pg_advisory_xact_lock(hashtextextended(%(name)s, 0))", name=name)


def _run(
    run: ReconciliationRun, csv_file: IO[bytes] | None, progress: Progress, seconds_max: int
) -> None:
    again: list[date] = []
    if csv_file is None:
        gateway = gateways.gateway_named(run.gateway)
        again = _days_to_ask_for_again(run, gateway.settles_within_days)
        days = [run.day, *_days_around(run, gateway.settles_within_days), *again]
        lines = reports.from_gateway(gateway, days)
    else:
        days, lines = [run.day], reports.from_csv(csv_file, run.day)
    with tempfile.TemporaryFile() as spool:
        _write(spool, run.gateway, lines, progress)
        spool.seek(0)
        with transaction.atomic():
            give_time(seconds_max)
            execute(f"SET LOCAL lock_timeout = '{seconds_max}s'")
            _lock("payments_reconciliation")  # the clearing accounts are those of all gateways
            matching.load(spool, run.gateway, days)
            matching.compare(run, again)


def _days_around(run: ReconciliationRun, within: int) -> list[date]:
    """The day after and the days before where a line of this one may stand, unless their own
    reports are here or they have not begun."""
    around = [*_days_before(run.day, max(1, within)), run.day + reports.A_DAY]
    return [day for day in around if day <= _today() and _done_from(run.gateway, day) is None]


def _days_to_ask_for_again(run: ReconciliationRun, within: int) -> list[date]:
    """The earlier days that the gateway reported, and may report otherwise by now; not those whose
    lines came from a file."""
    asked = ReconciliationRun.Source.GATEWAY
    earlier = _days_before(run.day, within)
    return [day for day in earlier if _done_from(run.gateway, day) == asked]


def _days_before(day: date, count: int) -> list[date]:
    return [day - timedelta(days=ago) for ago in range(1, count + 1)]


def _write(
    spool: IO[bytes],
    gateway: str,
    lines: Iterator[tuple[date, ReportLine]],
    progress: Progress,
) -> None:
    text = io.TextIOWrapper(spool, encoding="utf-8", newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    for number, (day, line) in enumerate(lines, start=1):
        writer.writerow(
            [
                gateway,
                day,
                line.subject,
                line.gateway_reference,
                line.amount,
                line.currency,
                line.at,
            ]
        )
        if number % 1000 == 0:
            progress(1000)
    text.flush()
    text.detach()


def _fail(run: ReconciliationRun, error: str) -> None:
    mine = ReconciliationRun.objects.filter(pk=run.pk, status=ReconciliationRun.Status.RUNNING)
    mine.update(
        status=ReconciliationRun.Status.FAILED,
        error=error[:ERROR_MAX_LENGTH] or "No reason was given.",
        finished_at=Now(),
    )
    logger.error("reconciliation failed", extra={"run": str(run.pk), "reason": error})
