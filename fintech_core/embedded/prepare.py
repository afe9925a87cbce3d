"""All that Django has to do before the first request, in one process: each start of one costs
more than a second.

Run by `run` as `python -m fintech_core.embedded.prepare LOGINS_FILE`.
"""

import hashlib
import io
import os
import sys
from pathlib import Path

import django
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command, get_commands

from fintech_core.embedded.environment import DEMO_SUPERUSER
from fintech_core.embedded.files import write_private


def main(logins: Path) -> None:
    """Migrate, collect static files, make the superuser and the demo people."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fintech_core.settings")
    django.setup()
    call_command("migrate", interactive=False, verbosity=1)
    collect_static_files(logins.parent / "static-files")
    lines = [create_superuser()]
    if settings.PAYMENTS_SANDBOX and "seed_demo" in get_commands():
        shown = io.StringIO()
        call_command("seed_demo", stdout=shown)
        lines.append(shown.getvalue())
    write_private(logins, "\n".join(lines))


def collect_static_files(stamp: Path) -> None:
    """Collect and compress, unless nothing that is collected has changed since."""
    now = static_fingerprint()
    if stamp.exists() and stamp.read_text() == now and Path(settings.STATIC_ROOT).is_dir():
        return
    print("Collecting static files ...", flush=True)
    call_command("collectstatic", interactive=False, verbosity=0)
    stamp.write_text(now)


def static_fingerprint() -> str:
    """Of the names, sizes and times of every static file."""
    from django.contrib.staticfiles.finders import get_finders  # needs the settings

    digest = hashlib.sha256(str(settings.STATIC_ROOT).encode())
    for finder in get_finders():
        for name, storage in finder.list([]):
            found = os.stat(storage.path(name))
            digest.update(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def create_superuser() -> str:
    """The superuser that the environment names, unless there is one; returns the login to show."""
    user = get_user_model()
    email = os.environ["DJANGO_SUPERUSER_EMAIL"]
    people = user._default_manager.filter(**{f"{user.USERNAME_FIELD}__iexact": email})
    if not people.exists():
        call_command("createsuperuser", interactive=False, email=email, verbosity=0)
    demo = DEMO_SUPERUSER["DJANGO_SUPERUSER_PASSWORD"]
    known = people.get().check_password(demo)
    return f"Admin login: {email}  {demo if known else '(the password that you chose)'}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
