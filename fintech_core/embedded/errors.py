"""What the runner says and stops at: a sentence for the person at the keyboard, no traceback."""


class EmbeddedError(Exception):
    """The message is complete: what is wrong, and what to do about it."""


class StopRequested(Exception):
    """Ctrl-C or SIGTERM arrived. Raised only at safe points, never in the middle of a start."""
