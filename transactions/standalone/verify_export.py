#!/usr/bin/env python3
"""Check an export of the ledger, or one owner's proof, without trusting whoever made it.

    python verify_export.py EXPORT [--public-key KEY]... [--checkpoint FILE]...
    python verify_export.py --proof FILE [--public-key KEY]... [--checkpoint FILE]...

EXPORT is what `manage.py export_ledger` wrote (`-`: standard input). KEY is the operator's public
key in base64, got from somewhere else than the export; without one, the keys that the export names
are believed. A checkpoint FILE is a checkpoint that you kept (as the API gave it: one, or a page of
them): the export must still contain it, and its whole past must still lead to it. An export of one
wallet must prove the wallet in the newest one that you kept: `export_ledger --checkpoint NUMBER`.

Names each breach and exits 1; exits 0 if there is none, 2 if it cannot be read, or is written
otherwise than an export. Says how much of what it read is signed; with a key or a checkpoint of
yours, an export of which nothing is signed is a breach. Needs Python 3.9 and nothing else.
`docs/ledger-proof.md` explains the format, so that you can write your own.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TextIO

EXPORT_FORMAT = "fintech-core/ledger-export/1"
CHECKPOINT_FORMAT = "fintech-core/checkpoint/1"
TRANSACTION_FORMAT = "fintech-core/transaction/1"
OUTSIDE = "00000000-0000-0000-0000-000000000000"
ZERO = bytes(32)
EMPTY = hashlib.sha256(b"").digest()
# Whatever a checkpoint lacks was committed after it began, and dated at most so long before that.
SLACK = timedelta(hours=1)


class Unreadable(Exception):
    """The file is not what this program reads."""


class Report:
    """Says each breach as it is found."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.count = 0

    def __call__(self, subject: str, detail: str) -> None:
        self.count += 1
        self.say(f"{subject}: {detail}")

    def say(self, text: str) -> None:
        self._out.write(f"{plain(text)}\n")


def plain(text: str) -> str:
    """In one line and in ASCII: what a file says cannot pass for what this program says."""
    return text.encode("unicode_escape").decode("ascii")


# --- What is written in one way only -------------------------------------------------------------

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_HASH = re.compile(r"[0-9a-f]{64}")
_AMOUNT = re.compile(r"-?[0-9]{1,13}\.[0-9]{2}")
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
_MOMENT_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"


def load(text: str) -> dict[str, Any]:
    """A JSON object in which each member is there once. Raises Unreadable."""
    found = _DECODER.decode(text)
    if not isinstance(found, dict):
        raise Unreadable("this is not a JSON object")
    return found


def _members_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Unreadable("a JSON object has a member twice")
    return members


def _no_number(text: str) -> None:
    raise Unreadable(f"{text} is not a number")


_DECODER = json.JSONDecoder(object_pairs_hook=_members_once, parse_constant=_no_number)


def _is(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def an_id(value: Any) -> str:
    if not _is(_ID, value):
        raise Unreadable(f"{value!r} is not an id")
    return str(value)


def a_hash(value: Any) -> bytes:
    if not _is(_HASH, value):
        raise Unreadable(f"{value!r} is not a hash")
    return bytes.fromhex(value)


def a_count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise Unreadable(f"{value!r} is not a count")
    return value


def money(value: Any) -> Decimal:
    if not _is(_AMOUNT, value):
        raise Unreadable(f"{value!r} is not an amount")
    return Decimal(value)


def is_moment(value: Any) -> bool:
    return _is(_MOMENT, value)


def well_before(moment: str) -> str:
    parsed = datetime.strptime(moment, _MOMENT_FORMAT)  # noqa: DTZ007 - all are in UTC
    return f"{(parsed - SLACK).isoformat(timespec='microseconds')}Z"


# --- Ed25519 (RFC 8032): checking a signature ----------------------------------------------------

Point = tuple[int, int, int, int]  # extended coordinates

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_ROOT_OF_MINUS_1 = pow(2, (_P - 1) // 4, _P)


def _add(one: Point, other: Point) -> Point:
    a = (one[1] - one[0]) * (other[1] - other[0]) % _P
    b = (one[1] + one[0]) * (other[1] + other[0]) % _P
    c = 2 * one[3] * other[3] * _D % _P
    d = 2 * one[2] * other[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _times(number: int, point: Point) -> Point:
    total = (0, 1, 1, 0)
    while number:
        if number & 1:
            total = _add(total, point)
        point = _add(point, point)
        number >>= 1
    return total


def _same(one: Point, other: Point) -> bool:
    across = (one[0] * other[2] - other[0] * one[2]) % _P
    along = (one[1] * other[2] - other[1] * one[2]) % _P
    return across == along == 0


def _point(encoded: bytes) -> Point | None:
    """The point that 32 bytes stand for, or None if they stand for none."""
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= _P:
        return None
    squared = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(squared, (_P + 3) // 8, _P)
    if (x * x - squared) % _P:
        x = x * _ROOT_OF_MINUS_1 % _P
    if (x * x - squared) % _P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


def is_signed(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the signature is the key's over the message."""
    if len(public_key) != 32 or len(signature) != 64:
        return False
    base = _point((4 * pow(5, -1, _P) % _P).to_bytes(32, "little"))
    key, commitment = _point(public_key), _point(signature[:32])
    scalar = int.from_bytes(signature[32:], "little")
    if base is None or key is None or commitment is None or scalar >= _L:
        return False
    hashed = hashlib.sha512(signature[:32] + public_key + message).digest()
    challenge = int.from_bytes(hashed, "little") % _L
    return _same(_times(scalar, base), _add(commitment, _times(challenge, key)))


# --- Digests and seals ---------------------------------------------------------------------------

TRANSACTION_FIELDS = (
    "id",
    "reference_id",
    "type",
    "amount",
    "currency",
    "fee",
    "from_user_id",
    "to_user_id",
    "parent_id",
    "description",
    "metadata",
    "effect_key",
    "created_at",
)
ENTRY_FIELDS = (
    "id",
    "account",
    "wallet_id",
    "sequence",
    "entry_type",
    "amount",
    "currency",
    "balance_after",
    "created_at",
)


def netstring(value: object) -> bytes:
    if value is None:
        return b"-"
    encoded = str(value).encode()
    return b"%d:%b," % (len(encoded), encoded)


def digest_of(made: dict[str, Any]) -> bytes:
    """SHA-256 over a transaction and all its entries."""
    entries = sorted(made["entries"], key=lambda entry: str(entry["id"]))
    values = [TRANSACTION_FORMAT, *(made[name] for name in TRANSACTION_FIELDS), len(entries)]
    values += [entry[name] for entry in entries for name in ENTRY_FIELDS]
    return hashlib.sha256(b"".join(map(netstring, values))).digest()


def seal_after(previous: bytes, digest: bytes) -> bytes:
    return hashlib.sha256(previous + digest).digest()


# --- The Merkle tree -----------------------------------------------------------------------------


def wallet_bytes(wallet_id: str) -> bytes:
    return bytes.fromhex(wallet_id.replace("-", ""))


def key_of(wallet_id: str) -> int:
    """Where the wallet's leaf is: each bit, the first one first, chooses left (0) or right (1)."""
    return int.from_bytes(hashlib.sha256(wallet_bytes(wallet_id)).digest(), "big")


def bit(key: int, depth: int) -> int:
    return key >> (255 - depth) & 1


def leaf_hash(wallet_id: str, entry_count: int, seal: bytes) -> bytes:
    counted = entry_count.to_bytes(8, "big")
    return hashlib.sha256(b"\x00" + wallet_bytes(wallet_id) + counted + seal).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_from(wallet_id: str, entry_count: int, seal: bytes, siblings: list[bytes]) -> bytes:
    """The root that a leaf belongs to; `siblings` lead from the root down to it."""
    hashed, key = leaf_hash(wallet_id, entry_count, seal), key_of(wallet_id)
    for depth in range(len(siblings) - 1, -1, -1):
        beside = siblings[depth]
        hashed = node_hash(beside, hashed) if bit(key, depth) else node_hash(hashed, beside)
    return hashed


class Tree:
    """All heads. A node is None, a leaf (key, hash), or [left, right, hash or None if stale]."""

    def __init__(self) -> None:
        self._top: Any = None

    def put(self, wallet_id: str, entry_count: int, seal: bytes) -> None:
        leaf = (key_of(wallet_id), leaf_hash(wallet_id, entry_count, seal))
        self._top = self._put(self._top, leaf, 0)

    def _put(self, node: Any, leaf: tuple[int, bytes], depth: int) -> Any:
        if node is None or (isinstance(node, tuple) and node[0] == leaf[0]):
            return leaf
        if isinstance(node, tuple):
            other, node = node, [None, None, None]
            node[bit(other[0], depth)] = other
        side = bit(leaf[0], depth)
        node[side] = self._put(node[side], leaf, depth + 1)
        node[2] = None
        return node

    def root(self) -> bytes:
        return self._hash(self._top)

    def _hash(self, node: Any) -> bytes:
        if node is None:
            return EMPTY
        if isinstance(node, tuple):
            return bytes(node[1])
        if node[2] is None:
            node[2] = node_hash(self._hash(node[0]), self._hash(node[1]))
        return bytes(node[2])


# --- Checkpoints ---------------------------------------------------------------------------------


class Checkpoints:
    """Their signatures, their chain, what they count, and the roots that their leaves lead to."""

    def __init__(self, report: Report, trusted: Collection[bytes], wanted: Collection[int]) -> None:
        self._report = report
        self._trusted = trusted
        self._wanted = wanted  # numbers that somebody kept
        self._retired: set[str] = set()  # keys that another one has followed
        self._tree = Tree()
        self._counts: dict[str, int] = {}  # of each chain, as of the checkpoint that is read
        self._totals = [0, 0, 0]  # wallets, entries, transactions outside
        self._previous = ZERO
        self._is_open = False
        self.payloads: dict[int, str] = {}  # of the wanted ones
        self.number = 0
        self.last: dict[str, Any] = {"root": EMPTY.hex()}  # what the newest says
        self.roots: list[str] = [EMPTY.hex()]  # by number, and so are the moments
        self.floors: list[str] = [""]  # no entry that a checkpoint lacks is older

    def open(self, line: dict[str, Any], *, has_leaves: bool) -> None:
        """A checkpoint begins; its leaves follow, unless the export is of one wallet."""
        self._is_open = has_leaves
        signed = read_signed(line, self._trusted, self._report)
        name = f"checkpoint {signed['number']}"
        if signed["number"] != self.number + 1:
            self._report(name, f"follows number {self.number}: checkpoints are missing")
        elif signed["previous"] != self._previous.hex():
            self._report(name, "does not name the one before it: history was rewritten")
        self._check_key(name, signed["key_id"])
        self._previous = hashlib.sha256(line["payload"].encode()).digest()
        self.number, self.last = signed["number"], signed
        self.roots.append(signed["root"])
        self.floors.append(well_before(signed["created_at"]))
        if self.number in self._wanted:
            self.payloads[self.number] = line["payload"]

    def _check_key(self, name: str, key_id: str) -> None:
        """One that was followed by another may have been given up as stolen."""
        before = self.last.get("key_id")
        if before not in (None, key_id):
            self._retired.add(before)
        if key_id in self._retired:
            self._report(name, f"is signed by key {key_id}, which another one had followed")

    def leaf(self, wallet_id: str, entry_count: int, seal: bytes) -> None:
        if not self._is_open:
            raise Unreadable("a leaf without its checkpoint")
        known = self._counts.get(wallet_id, 0)
        if entry_count <= known:
            self._report(title(wallet_id), "its leaves go backwards")
        self._counts[wallet_id] = entry_count
        if wallet_id == OUTSIDE:
            self._totals[2] = entry_count
        else:
            self._totals[0] += not known
            self._totals[1] += entry_count - known
        self._tree.put(wallet_id, entry_count, seal)

    def close(self) -> None:
        """All leaves of the checkpoint have been read."""
        if not self._is_open:
            return
        self._is_open = False
        name = f"checkpoint {self.number}"
        said = [self.last[field] for field in ("wallet_count", "entry_count", "outside_count")]
        if said != self._totals:
            self._report(name, f"counts {said}, its leaves count {self._totals}")
        root = self._tree.root().hex()
        if self.last["root"] != root:
            self._report(name, f"signed root {self.last['root']}, its leaves lead to {root}")


def read_signed(
    line: dict[str, Any], trusted: Collection[bytes], report: Report, whose: str = ""
) -> dict[str, Any]:
    """What a checkpoint's payload says, its signature being checked."""
    payload = line["payload"]
    signed = load(payload)
    name = f"{whose}checkpoint {a_count(signed['number'])}"
    if signed["format"] != CHECKPOINT_FORMAT:
        raise Unreadable(f"{name} has the format {signed['format']!r}")
    for member in ("wallet_count", "entry_count", "outside_count"):
        a_count(signed[member])
    if not (
        a_hash(signed["root"]) and a_hash(signed["previous"]) and is_moment(signed["created_at"])
    ):
        raise Unreadable(f"{name} has no proper time")
    key = base64.b64decode(line["public_key"])
    if key not in trusted:
        report(name, "is signed by a key that is not trusted")
    if hashlib.sha256(key).hexdigest()[:16] != signed["key_id"]:
        report(name, "names another key than the one that signed it")
    if not is_signed(key, base64.b64decode(line["signature"]), payload.encode()):
        report(name, "its signature is wrong")
    return signed


def check_proof(proof: dict[str, Any], signed_root: str, report: Report) -> bytes:
    """Whether a wallet's head is below the root that was signed. Returns the head's seal."""
    wallet_id, seal = an_id(proof["wallet_id"]), a_hash(proof["seal"])
    siblings = [a_hash(text) for text in proof["siblings"]]
    root = root_from(wallet_id, a_count(proof["entry_count"]), seal, siblings).hex()
    if root != signed_root:
        report(title(wallet_id), f"its proof leads to {root}, signed is {signed_root}")
    return seal


class Kept:
    """Checkpoints that somebody kept: their payloads, by number."""

    def __init__(
        self, found: Iterable[dict[str, Any]], trusted: Collection[bytes], report: Report
    ) -> None:
        self.payloads: dict[int, set[str]] = {}
        for line in found:
            number = read_signed(line, trusted, report, "the kept ")["number"]
            self.payloads.setdefault(number, set()).add(line["payload"])
        for number, payloads in self.payloads.items():
            if len(payloads) > 1:
                report(f"checkpoint {number}", "different ones were kept: there are two histories")

    def compare(self, number: int, payload: str | None, report: Report) -> None:
        if {payload} != self.payloads[number]:
            report(f"checkpoint {number}", "is not the one that you kept: history was rewritten")


# --- Transactions --------------------------------------------------------------------------------


class Chain:
    """One wallet's entries so far. Those that come too early wait for the ones before them."""

    __slots__ = ("balance", "count", "moment", "oldest", "owner", "seal", "signed", "waiting")

    def __init__(self) -> None:
        self.count, self.seal, self.balance, self.moment = 0, ZERO, Decimal(0), ""
        self.owner: tuple[str, str] | None = None  # a person and a currency
        self.signed = 0  # how many entries a checkpoint covers
        self.oldest = ""  # the earliest time after those
        self.waiting: dict[int, tuple[dict[str, Any], bytes, dict[str, Any]]] = {}


class Ledger:
    """Every transaction balances, and every entry continues its wallet's chain."""

    def __init__(self, report: Report, only: str | None, checkpoints: Checkpoints) -> None:
        self._report = report
        self._only = only  # in an export of one wallet, the other sides cannot be followed
        self._checkpoints = checkpoints
        self._last_wallet = ""
        self._chains: dict[str, Chain] = {}
        self._refunded: dict[str, Decimal] = {}
        self._refunds: dict[str, Decimal] = {}
        # (wallet, entry) → (seal, checkpoint): what was signed, until the entry is met
        self.heads: dict[tuple[str, int], tuple[bytes, int]] = {}
        self.entries = self.signed = 0
        self.proved: set[int] = set()  # the checkpoints in which one wallet is proved

    @property
    def is_whole(self) -> bool:
        return self._only is None

    def leaf(self, line: dict[str, Any]) -> None:
        head = an_id(line["wallet_id"]), a_count(line["entry_count"])
        seal = a_hash(line["seal"])
        self._checkpoints.leaf(*head, seal)
        self.heads[head] = (seal, self._checkpoints.number)

    def proof(self, line: dict[str, Any]) -> None:
        number = a_count(line["number"])
        if (
            self.is_whole
            or line["wallet_id"] != self._only
            or number >= len(self._checkpoints.roots)
        ):
            raise Unreadable("a proof of another wallet, or in no checkpoint of this export")
        seal = check_proof(line, self._checkpoints.roots[number], self._report)
        self.heads[line["wallet_id"], line["entry_count"]] = (seal, number)
        self.proved.add(number)

    def transaction(self, made: dict[str, Any]) -> None:
        require_texts(made)
        name = f"transaction {made['id']}"
        self._check_books(name, made)
        self._note_refunds(made)
        digest = digest_of(made)
        in_wallets = [entry for entry in made["entries"] if entry["wallet_id"] is not None]
        for entry in in_wallets:
            self._receive(entry["wallet_id"], entry, digest, made)
        if in_wallets:
            return
        if made["outside"] is None:
            self._report(name, "has no seal")
        else:
            self._receive(OUTSIDE, made["outside"], digest, made)

    def _check_books(self, name: str, made: dict[str, Any]) -> None:
        sides = {"debit": Decimal(0), "credit": Decimal(0)}
        for entry in made["entries"]:
            amount = money(entry["amount"])
            sides[entry["entry_type"]] += amount
            if amount <= 0:
                self._report(name, f"an entry has the amount {amount}")
            if (entry["currency"], entry["created_at"]) != (made["currency"], made["created_at"]):
                self._report(name, "an entry has another currency or another time")
            if (entry["account"] == "wallet") != (entry["wallet_id"] is not None):
                self._report(name, "an entry is in a wallet and in none")
        if not is_moment(made["created_at"]):
            self._report(name, "has no proper time")
        moved = money(made["amount"]) + money(made["fee"])
        if len(made["entries"]) < 2 or sides["debit"] != sides["credit"]:
            detail = f"debits {sides['debit']} and credits {sides['credit']} do not balance"
            self._report(name, detail)
        elif sides["debit"] != moved:
            self._report(name, f"its entries move {sides['debit']}, it says {moved}")

    def _note_refunds(self, made: dict[str, Any]) -> None:
        if refunded := money(made["refunded_amount"]):
            self._refunded[made["id"]] = refunded
        if made["type"] == "refund":
            before = self._refunds.get(made["parent_id"], Decimal(0))
            self._refunds[made["parent_id"]] = before + money(made["amount"])

    def _receive(
        self, wallet_id: str, entry: dict[str, Any], digest: bytes, made: dict[str, Any]
    ) -> None:
        if self._only not in (None, wallet_id):
            return
        chain = self._chains.setdefault(wallet_id, Chain())
        number = a_count(entry["sequence"])
        if number <= chain.count or number in chain.waiting:
            again = f"is entry {number} of {title(wallet_id)} once more"
            self._report(f"transaction {made['id']}", again)
            return
        chain.waiting[number] = (entry, digest, made)
        while chain.count + 1 in chain.waiting:
            self._continue(wallet_id, chain)

    def _continue(self, wallet_id: str, chain: Chain) -> None:
        """The next entry of the wallet is here."""
        chain.count += 1
        self.entries += 1
        entry, digest, made = chain.waiting.pop(chain.count)
        name = f"{title(wallet_id)}, entry {chain.count}"
        if wallet_id != OUTSIDE:
            self._check_running(name, chain, entry)
            self._check_owner(name, chain, entry, made)
        seal = seal_after(chain.seal, digest)
        if entry["seal"] != seal.hex():
            self._report(name, "its seal does not fit: its transaction, or the past, was changed")
        # From here on as it says, so that one forged line is named once.
        chain.seal = a_hash(entry["seal"]) if entry["seal"] else seal
        if is_moment(made["created_at"]):
            chain.oldest = min(chain.oldest or made["created_at"], made["created_at"])
        if head := self.heads.pop((wallet_id, chain.count), None):
            self._pass_head(name, wallet_id, chain, *head)

    def _pass_head(self, name: str, wallet_id: str, chain: Chain, seal: bytes, number: int) -> None:
        """A checkpoint signed the chain up to here."""
        if seal != chain.seal:
            self._report(name, f"checkpoint {number} signed another seal: history was rewritten")
        if self.is_whole:  # with each change of a head: the checkpoint before had none of this
            self._check_dates(wallet_id, chain, number - 1)
        chain.signed, chain.oldest = chain.count, ""

    def _check_dates(self, wallet_id: str, chain: Chain, lacking: int) -> None:
        """The entries since the last head are not in that checkpoint, so they are later."""
        if chain.oldest and chain.oldest < self._checkpoints.floors[lacking]:
            detail = f"has an entry of {chain.oldest} that checkpoint {lacking} did not sign"
            self._report(title(wallet_id), detail)

    def _check_running(self, name: str, chain: Chain, entry: dict[str, Any]) -> None:
        amount = money(entry["amount"])
        expected = chain.balance + (amount if entry["entry_type"] == "credit" else -amount)
        chain.balance = money(entry["balance_after"])
        if chain.balance != expected:
            self._report(name, f"balance {chain.balance}, should be {expected}")
        if chain.balance < 0:
            self._report(name, f"balance {chain.balance} is below zero")
        if entry["created_at"] < chain.moment:
            self._report(name, "is older than the entry before it")
        chain.moment = entry["created_at"]

    def _check_owner(
        self, name: str, chain: Chain, entry: dict[str, Any], made: dict[str, Any]
    ) -> None:
        party = made["from_user_id" if entry["entry_type"] == "debit" else "to_user_id"]
        owner = (party, entry["currency"])
        if chain.owner not in (None, owner) or party is None:
            self._report(name, f"is of {owner}, the one before it of {chain.owner}")
        chain.owner = owner

    def wallet(self, line: dict[str, Any]) -> None:
        if an_id(line["id"]) <= self._last_wallet:
            raise Unreadable("wallets are not in the order of their ids, each once")
        self._last_wallet = line["id"]
        chain = self._chains.pop(line["id"], None) or Chain()
        self._close_chain(line["id"], chain)
        balance, count = money(line["balance"]), a_count(line["entry_count"])
        if not 0 <= money(line["held"]) <= balance:
            self._report(title(line["id"]), f"holds {line['held']} of {balance}")
        owner = (an_id(line["user_id"]), line["currency"])
        if chain.owner not in (None, owner):
            self._report(title(line["id"]), f"is of {owner}, its entries are of {chain.owner}")
        if (balance, count) != (chain.balance, chain.count):
            self._report(
                title(line["id"]),
                f"says balance {balance} after {count} entries; "
                f"its entries say {chain.balance} after {chain.count}",
            )

    def close(self) -> None:
        """Everything has been read: what is still open is a breach."""
        if outside := self._chains.pop(OUTSIDE, None):
            self._close_chain(OUTSIDE, outside)
        for wallet_id in self._chains:
            self._report(title(wallet_id), "has entries, but is not in the export")
        self._check_heads()
        if self.is_whole:
            self._check_refunds()

    def _check_heads(self) -> None:
        missing: dict[str, tuple[int, int]] = {}
        for (wallet_id, entry), (_, checkpoint) in self.heads.items():
            missing.setdefault(wallet_id, (checkpoint, entry))
        for wallet_id, (checkpoint, entry) in missing.items():
            self._report(
                title(wallet_id),
                f"checkpoint {checkpoint} signed {entry} entries, and that one is gone: "
                "a tail was cut",
            )

    def _check_refunds(self) -> None:
        for parent in sorted({*self._refunds, *self._refunded}):
            if self._refunds.get(parent) != self._refunded.get(parent):
                self._report(f"transaction {parent}", "its refunds are not what it says")

    def _close_chain(self, wallet_id: str, chain: Chain) -> None:
        if chain.waiting:
            detail = f"entry {chain.count + 1} is missing, later ones are there"
            self._report(title(wallet_id), detail)
        self._check_dates(wallet_id, chain, self._checkpoints.number)
        self.signed += chain.signed


def require_texts(made: dict[str, Any]) -> None:
    """Raises Unreadable for whatever could be written in two ways, and so hashed in two."""
    for name in TRANSACTION_FIELDS:
        if not isinstance(made[name], (str, type(None))):
            raise Unreadable(f"{made[name]!r} is not a text")
    people = [made[name] for name in ("from_user_id", "to_user_id", "parent_id")]
    places = [entry["wallet_id"] for entry in made["entries"]]
    for value in (*people, *places):
        if value is not None:
            an_id(value)
    if OUTSIDE in places:
        raise Unreadable("an entry is in the wallet that stands for none")
    for identified in (made, *made["entries"]):
        an_id(identified["id"])


def title(wallet_id: str) -> str:
    return "transactions outside all wallets" if wallet_id == OUTSIDE else f"wallet {wallet_id}"


# --- Files ---------------------------------------------------------------------------------------


# Each kind of line, and the kinds that may follow it.
_FOLLOWED_BY = {
    "header": ("checkpoint", "proof", "transaction", "wallet", "end"),
    "checkpoint": ("checkpoint", "leaf", "proof", "transaction", "wallet", "end"),
    "leaf": ("checkpoint", "leaf", "transaction", "wallet", "end"),
    "proof": ("proof", "transaction", "wallet", "end"),
    "transaction": ("transaction", "wallet", "end"),
    "wallet": ("wallet", "end"),
    "end": (),
}


def check_export(
    file: Iterable[str], report: Report, keys: Collection[bytes], found: list[dict[str, Any]]
) -> str:
    """Check a whole export; `found` are checkpoints that were kept. Returns what was checked."""
    lines = read_lines(file)
    header: dict[str, Any] = next(lines, {"kind": "nothing"})
    if header["kind"] != "header" or header["format"] != EXPORT_FORMAT:
        raise Unreadable(f"this is not an export in the format {EXPORT_FORMAT}")
    only = None if header["wallet_id"] is None else an_id(header["wallet_id"])
    trusted = keys or {base64.b64decode(key["public_key"]) for key in header["public_keys"]}
    kept = Kept(found, trusted, report)
    checkpoints = Checkpoints(report, trusted, kept.payloads)
    ledger = Ledger(report, only, checkpoints)
    read_body(lines, checkpoints, ledger, report)
    ledger.close()
    for number in kept.payloads:
        kept.compare(number, checkpoints.payloads.get(number), report)
    if only is not None:
        check_proved(only, ledger.proved, checkpoints, kept, report)
    check_signed(ledger, checkpoints, report, is_demanded=bool(keys or found))
    scope = title(only) if only else "the whole ledger"
    return f"{scope}: {ledger.entries} entries and {checkpoints.number} checkpoints"


def check_proved(
    wallet_id: str, proved: set[int], checkpoints: Checkpoints, kept: Kept, report: Report
) -> None:
    """One wallet's export has no leaves: what binds it to a checkpoint is a proof in it."""
    if proved and checkpoints.number not in proved:
        report(title(wallet_id), f"is not proved in checkpoint {checkpoints.number}, the newest")
    if kept.payloads and (newest := max(kept.payloads)) not in proved:
        report(
            title(wallet_id),
            f"is not proved in checkpoint {newest}, the newest that you kept, which so says "
            f"nothing about it: export it with --checkpoint {newest}",
        )


def check_signed(
    ledger: Ledger, checkpoints: Checkpoints, report: Report, *, is_demanded: bool
) -> None:
    """How much of what was read is signed, and so how far the verdict can be relied on."""
    if is_demanded and ledger.entries and not ledger.signed:
        report("the export", "none of its entries is signed by any checkpoint")
    if not report.count and ledger.entries:
        newest = checkpoints.last.get("created_at")
        until = f", as of checkpoint {checkpoints.number} of {newest}" if newest else ""
        report.say(f"{ledger.signed} of {ledger.entries} entries are signed{until}.")


def read_lines(file: Iterable[str]) -> Iterator[dict[str, Any]]:
    for text in file:
        line = load(text)
        if "kind" not in line:
            raise Unreadable("a line is not a JSON object with a kind")
        yield line


def read_body(
    lines: Iterable[dict[str, Any]], checkpoints: Checkpoints, ledger: Ledger, report: Report
) -> None:
    """Everything after the header: checkpoints with their leaves, transactions, wallets."""
    count, kind, line = 1, "header", {}
    for line in lines:
        count += 1
        if line["kind"] not in _FOLLOWED_BY[kind]:
            raise Unreadable(f"a line of the kind {line['kind']!r} after one of the kind {kind!r}")
        kind = line["kind"]
        if kind == "leaf":
            ledger.leaf(line)
            continue
        checkpoints.close()
        if kind == "checkpoint":
            checkpoints.open(line, has_leaves=ledger.is_whole)
        elif kind == "proof":
            ledger.proof(line)
        elif kind == "transaction":
            ledger.transaction(line)
        elif kind == "wallet":
            ledger.wallet(line)
    if kind != "end" or line["lines"] != count:
        report("the export", "is incomplete: lines are missing")


def kept_checkpoints(paths: Iterable[str]) -> Iterator[dict[str, Any]]:
    """What files hold: a checkpoint, or a page of them, as the API gives them."""
    for path in paths:
        with open(path, encoding="utf-8") as file:
            found = load(file.read())
        page = found.get("results", [found])
        if not page:
            raise Unreadable(f"{path} has no checkpoint in it")
        yield from page


def run_export(options: argparse.Namespace, keys: set[bytes], report: Report) -> str:
    found = list(kept_checkpoints(options.checkpoint))
    if options.export == "-":
        return check_export(sys.stdin, report, keys, found)
    with open(options.export, encoding="utf-8") as file:
        return check_export(file, report, keys, found)


def run_proof(options: argparse.Namespace, keys: set[bytes], report: Report) -> str:
    with open(options.proof, encoding="utf-8") as file:
        proof = load(file.read())
    checkpoint = proof["checkpoint"]
    trusted = keys or {base64.b64decode(checkpoint["public_key"])}
    signed = read_signed(checkpoint, trusted, report)
    check_proof(proof, signed["root"], report)
    kept = Kept(kept_checkpoints(options.checkpoint), trusted, report)
    if signed["number"] in kept.payloads:
        kept.compare(signed["number"], checkpoint["payload"], report)
    elif kept.payloads:
        raise Unreadable(f"none of the checkpoints that you kept is number {signed['number']}")
    return (
        f"checkpoint {signed['number']} of {signed['created_at']} signs entry "
        f"{proof['entry_count']} of wallet {proof['wallet_id']}, and so all before it"
    )


def read_options(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("export", nargs="?", help="the file; - is standard input")
    what.add_argument("--proof", metavar="FILE", help="the answer of /wallets/me/proof/")
    parser.add_argument("--public-key", action="append", default=[], metavar="KEY")
    parser.add_argument("--checkpoint", action="append", default=[], metavar="FILE")
    return parser.parse_args(words)


# What a file of another shape leads to.
_NOT_AN_EXPORT = (
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)


def main(words: list[str] | None = None) -> int:
    options = read_options(words)
    report = Report(sys.stdout)
    run = run_proof if options.proof else run_export
    try:
        keys = {base64.b64decode(key, validate=True) for key in options.public_key}
        checked = run(options, keys, report)
    except (Unreadable, OSError, *_NOT_AN_EXPORT) as exc:
        sys.stderr.write(plain(f"This cannot be read: {type(exc).__name__}: {exc}") + "\n")
        return 2
    if not keys:
        report.say("The keys are those that the file names: compare them with the real ones.")
    verdict = f"{report.count} breaches" if report.count else "sound"
    report.say(f"{checked}: {verdict}")
    return 1 if report.count else 0


if __name__ == "__main__":
    sys.exit(main())
