"""What our processes have in memory: they share what they can, and beat has what it needs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from fintech_core.tests.live import Beat, Process, Web, Worker, wait_until

SHOW_WHAT_BEAT_LOADS = """
import sys
from fintech_core.beat import app
app.loader.init_worker()
app.finalize()
ours = {"users", "wallet", "transactions", "payments"}
print(sorted({name.partition(".")[0] for name in sys.modules} & (ours | {"rest_framework"})))
print(sorted(name for name in app.tasks if not name.startswith("celery.")))
"""


def memory(pid: int) -> dict[str, int]:
    """As Linux counts it, in KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(size.split()[0]) for name, _, size in (line.partition(":") for line in lines)}


@pytest.mark.parametrize("program", [Web, Worker])
def test_given_a_new_process_when_looking_at_its_memory_then_it_shares_most_of_it(
    program: type[Process], tmp_path: Path, django_db_setup: None
) -> None:
    with program(tmp_path) as started:
        wait_until(lambda: bool(started.children()), 10, started.said)
        for child in started.children():
            used = memory(child)
            assert used["Private_Dirty"] < used["Rss"] / 2


def test_given_the_scheduler_when_it_is_loaded_then_it_has_neither_models_nor_tasks() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", SHOW_WHAT_BEAT_LOADS],
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.splitlines() == ["[]", "[]"]


def test_given_the_schedule_when_beat_runs_then_a_worker_gets_its_tasks_and_lines_are_json(
    tmp_path: Path, django_db_setup: None
) -> None:
    # Given
    with Worker(tmp_path) as worker, Beat(tmp_path) as beat:
        # When
        wait_until(lambda: "fintech_core.deliver_webhooks" in beat.said(), 20, beat.said)
        # Then
        sent = next(line for line in beat.said().splitlines() if "deliver_webhooks" in line)
        assert json.loads(sent)["logger"] == "celery.beat"
        wait_until(lambda: "Task fintech_core.deliver_webhooks" in worker.said(), 10, worker.said)
        wait_until(lambda: "succeeded" in worker.said(), 10, worker.said)
