#!/usr/bin/env python
"""Django's command line. `make shell`, `make migrate` etc. call it with the right environment."""

import os
import sys


def main() -> None:
    """Run one management command."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fintech_core.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as refusal:
        sys.stderr.write(f"manage.py: {refusal}\n")
        sys.exit(2)  # 1 is an answer of some commands


if __name__ == "__main__":
    main()
