"""When a gateway and we do not mean the same."""


class Disagreement(Exception):
    """The statement must not have its effect; the message tells staff why."""
