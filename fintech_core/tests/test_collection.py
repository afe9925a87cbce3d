"""Workers that share a run out must find the same tests, by the same names, in the same order."""

import os
import subprocess
import sys
from datetime import timedelta

from django.conf import settings
from django.utils.timezone import now

COLLECT = """
import sys, pytest, time_machine
with time_machine.travel({moment}):
    sys.exit(pytest.main(["--collect-only", "-q", "-n", "0", "-W", "ignore", *sys.argv[1:]]))
"""


def names_on_another_day(paths: list[str]) -> list[str]:
    """What another process finds, which has another clock, hash seed and secret."""
    moment = (now() + timedelta(days=400, hours=7)).timestamp()
    found = subprocess.run(
        [sys.executable, "-c", COLLECT.format(moment=moment), *paths],
        env={
            **{name: value for name, value in os.environ.items() if "PYTEST" not in name},
            "PYTHONHASHSEED": "7",
            "SECRET_KEY": os.environ["SECRET_KEY"][::-1],
        },
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout[-2000:] + found.stderr[-2000:]
    return [line for line in found.stdout.splitlines() if "::" in line]


def test_given_another_process_when_it_collects_then_it_finds_the_same_tests(request):
    theirs = names_on_another_day(request.config.args)
    # A run narrowed by -k holds some of them only; these must be there, and in this order.
    ours = [item.nodeid for item in request.session.items]
    wanted = set(ours)
    assert [name for name in theirs if name in wanted] == ours
