"""What is found, and how a rule says so."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Breach:
    """One thing that is wrong: the invariant's number, what breaks it, and how.

    `invariant` is None for what guards the records beside the ledger: people, sessions, KYC.
    """

    invariant: int | None
    subject: str
    detail: str

    def __str__(self) -> str:
        where = "beside the ledger" if self.invariant is None else f"invariant {self.invariant}"
        return f"{where}: {self.subject}: {self.detail}"


@dataclass(frozen=True)
class Step:
    """A chunk that was checked: how many rows, and what was found."""

    rows: int
    breaches: list[Breach]


@dataclass(frozen=True)
class Rule:
    """What must not be, as an SQL condition; and SQL for what is wrong, and with what."""

    invariant: int
    broken: str
    detail: str
    subject: str


def select_broken(rules: Sequence[Rule], rows: str, *, within: str = "true") -> str:
    """A query for (invariant, subject, detail) of whatever among `rows` (a FROM …), and
    `within` the bounds, breaks a rule.

    Each row is judged once by all rules; only for those that break one is anything written out.
    """
    found = ",\n".join(
        f"({rule.invariant}, {rule.broken}, {rule.subject}, {rule.detail})" for rule in rules
    )
    broken = "\n OR ".join(f"({rule.broken})" for rule in rules)
    return f"""
SELECT found.invariant, found.subject, found.detail
{rows}
 CROSS JOIN LATERAL (VALUES {found}) found (invariant, is_broken, subject, detail)
 WHERE {within} AND ({broken}) AND found.is_broken"""


def breaches(rows: Iterable[Sequence[Any]]) -> list[Breach]:
    """What `select_broken` answered; each once, though two entries may tell of one breach."""
    return list(dict.fromkeys(Breach(*row) for row in rows))
