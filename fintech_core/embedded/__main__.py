"""The command line: `python -m fintech_core.embedded WORD [ARGUMENTS]`."""

import sys
from collections.abc import Callable

from fintech_core.embedded import commands
from fintech_core.embedded.errors import EmbeddedError

USAGE = """usage: python -m fintech_core.embedded WORD [ARGUMENTS]

  run                  everything on this machine, until Ctrl-C
  stop                 end a run that was started elsewhere
  status               whether it runs, and where
  manage ARGUMENTS     manage.py on the data of `run`
  logs                 the end of the log files
  clean                remove the data of `run`
  test ARGUMENTS       pytest on fresh servers
  private COMMAND      any command beside fresh servers, with the environment of the tests
  offline COMMAND      any command with that environment and no servers
  deploy-check         check --deploy, as in production"""

WITHOUT_ARGUMENTS: dict[str, Callable[[], int]] = {
    "run": commands.run,
    "stop": commands.stop,
    "status": commands.status,
    "logs": commands.logs,
    "clean": commands.clean,
    "deploy-check": commands.deploy_check,
}
WITH_ARGUMENTS: dict[str, Callable[[list[str]], int]] = {
    "manage": commands.manage,
    "test": commands.test,
    "private": commands.private,
    "offline": commands.offline,
}


def main(arguments: list[str]) -> int:
    """The exit code: the command's own, 1 for a refusal of ours, 2 for a word we do not know."""
    word, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    try:
        if word in WITH_ARGUMENTS:
            return WITH_ARGUMENTS[word](rest)
        if word in WITHOUT_ARGUMENTS and not rest:
            return WITHOUT_ARGUMENTS[word]()
    except EmbeddedError as refusal:
        print(f"\n{refusal}", file=sys.stderr, flush=True)
        return 1
    except PermissionError as refusal:
        print(
            f"\n{refusal.filename} belongs to another user (an earlier run as root?).\n"
            "Give it back with chown, or remove .local as that user.",
            file=sys.stderr,
        )
        return 1
    print(USAGE, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
