#!/usr/bin/env python3
"""Check an export of the ledger, or one owner's proof, without trusting whoever made it.

    python verify_export.py EXPORT [--public-key KEY]... [--checkpoint FILE]...
    python verify_export.py --proof FILE [--public-key KEY]...

EXPORT is what `manage.py export_ledger` wrote (`-`: standard input). KEY is the operator's public
key in base64, got from somewhere else than the export; without one, the keys that the export names
are believed. A checkpoint FILE is a checkpoint that you kept (as the API gave it: one, or a page of
them): the export must still contain it, and its whole past must still lead to it.

Names each breach and exits 1; exits 0 if there is none, 2 if it cannot be read. Needs Python 3.9
and nothing else. `docs/ledger-proof.md` explains the format, so that you can write your own.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import sys
from collections.abc import Collection, Iterable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, TextIO

EXPORT_FORMAT = "fintech-core/ledger-export/1"
CHECKPOINT_FORMAT = "fintech-core/checkpoint/1"
TRANSACTION_FORMAT = "fintech-core/transaction/1"
OUTSIDE = "00000000-0000-0000-0000-000000000000"
ZERO = bytes(32)
EMPTY = hashlib.sha256(b"").digest()


class Unreadable(Exception):
    """The file is not what this program reads."""


class Report:
    """Says each breach as it is found."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.count = 0

    def __call__(self, subject: str, detail: str) -> None:
        self.count += 1
        self._out.write(f"{subject}: {detail}\n")


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

    def __init__(self, report: Report, trusted: Collection[bytes], wanted: set[int]) -> None:
        self._report = report
        self._trusted = trusted
        self._wanted = wanted  # numbers that somebody kept
        self._tree = Tree()
        self._counts: dict[str, int] = {}  # of each chain, as of the checkpoint that is read
        self._totals = [0, 0, 0]  # wallets, entries, transactions outside
        self._previous = ZERO
        self._is_open = False
        self.payloads: dict[int, str] = {}  # of the wanted ones
        self.number = 0
        self.last: dict[str, Any] = {"root": EMPTY.hex()}  # what the newest says

    def open(self, line: dict[str, Any], *, has_leaves: bool) -> None:
        """A checkpoint begins; its leaves follow, unless the export is of one wallet."""
        self._is_open = has_leaves
        signed = read_signed(line, self._trusted, self._report)
        name = f"checkpoint {signed['number']}"
        if signed["number"] != self.number + 1:
            self._report(name, f"follows number {self.number}: checkpoints are missing")
        elif signed["previous"] != self._previous.hex():
            self._report(name, "does not name the one before it: history was rewritten")
        self._previous = hashlib.sha256(line["payload"].encode()).digest()
        self.number, self.last = signed["number"], signed
        if self.number in self._wanted:
            self.payloads[self.number] = line["payload"]

    def leaf(self, wallet_id: str, entry_count: int, seal: bytes) -> None:
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


def read_signed(line: dict[str, Any], trusted: Collection[bytes], report: Report) -> dict[str, Any]:
    """What a checkpoint's payload says, its signature being checked."""
    payload = line["payload"]
    signed: dict[str, Any] = json.loads(payload)
    name = f"checkpoint {signed['number']}"
    if signed["format"] != CHECKPOINT_FORMAT:
        raise Unreadable(f"{name} has the format {signed['format']}")
    key = base64.b64decode(line["public_key"])
    if key not in trusted:
        report(name, "is signed by a key that is not trusted")
    if hashlib.sha256(key).hexdigest()[:16] != signed["key_id"]:
        report(name, "names another key than the one that signed it")
    if not is_signed(key, base64.b64decode(line["signature"]), payload.encode()):
        report(name, "its signature is wrong")
    return signed


def check_proof(proof: dict[str, Any], signed: dict[str, Any], report: Report) -> bytes:
    """Whether a wallet's head is below the root that was signed. Returns the head's seal."""
    seal = bytes.fromhex(proof["seal"])
    siblings = [bytes.fromhex(text) for text in proof["siblings"]]
    root = root_from(proof["wallet_id"], proof["entry_count"], seal, siblings).hex()
    if root != signed["root"]:
        report(title(proof["wallet_id"]), f"its proof leads to {root}, signed is {signed['root']}")
    return seal


# --- Transactions --------------------------------------------------------------------------------


class Chain:
    """One wallet's entries so far. Those that come too early wait for the ones before them."""

    __slots__ = ("balance", "count", "moment", "seal", "waiting")

    def __init__(self) -> None:
        self.count, self.seal, self.balance, self.moment = 0, ZERO, Decimal(0), ""
        self.waiting: dict[int, tuple[dict[str, Any], bytes]] = {}


class Ledger:
    """Every transaction balances, and every entry continues its wallet's chain."""

    def __init__(self, report: Report, only: str | None) -> None:
        self._report = report
        self._only = only  # in an export of one wallet, the other sides cannot be followed
        self._chains: dict[str, Chain] = {}
        self._refunded: dict[str, Decimal] = {}
        self._refunds: dict[str, Decimal] = {}
        # (wallet, entry) → (seal, checkpoint): what was signed, until the entry is met
        self.heads: dict[tuple[str, int], tuple[bytes, int]] = {}
        self.entries = 0

    @property
    def is_whole(self) -> bool:
        return self._only is None

    def transaction(self, made: dict[str, Any]) -> None:
        name = f"transaction {made['id']}"
        self._check_books(name, made)
        self._note_refunds(made)
        digest = digest_of(made)
        in_wallets = [entry for entry in made["entries"] if entry["wallet_id"] is not None]
        for entry in in_wallets:
            self._receive(entry["wallet_id"], entry, digest, name)
        if in_wallets:
            return
        if made["outside"] is None:
            self._report(name, "has no seal")
        else:
            self._receive(OUTSIDE, made["outside"], digest, name)

    def _check_books(self, name: str, made: dict[str, Any]) -> None:
        sides = {"debit": Decimal(0), "credit": Decimal(0)}
        for entry in made["entries"]:
            amount = money(entry["amount"])
            sides[entry["entry_type"]] += amount
            if amount <= 0:
                self._report(name, f"an entry has the amount {amount}")
            if (entry["currency"], entry["created_at"]) != (made["currency"], made["created_at"]):
                self._report(name, "an entry has another currency or another time")
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

    def _receive(self, wallet_id: str, entry: dict[str, Any], digest: bytes, name: str) -> None:
        if self._only not in (None, wallet_id):
            return
        chain = self._chains.setdefault(wallet_id, Chain())
        number = entry["sequence"]
        if number <= chain.count or number in chain.waiting:
            self._report(name, f"is entry {number} of {title(wallet_id)} once more")
            return
        chain.waiting[number] = (entry, digest)
        while chain.count + 1 in chain.waiting:
            self._continue(wallet_id, chain)

    def _continue(self, wallet_id: str, chain: Chain) -> None:
        """The next entry of the wallet is here."""
        chain.count += 1
        self.entries += 1
        entry, digest = chain.waiting.pop(chain.count)
        name = f"{title(wallet_id)}, entry {chain.count}"
        if wallet_id != OUTSIDE:
            self._check_running(name, chain, entry)
        seal = seal_after(chain.seal, digest)
        if entry["seal"] != seal.hex():
            self._report(name, "its seal does not fit: its transaction, or the past, was changed")
        # From here on as it says, so that one forged line is named once.
        chain.seal = bytes.fromhex(entry["seal"]) if entry["seal"] else seal
        signed = self.heads.pop((wallet_id, chain.count), None)
        if signed and signed[0] != chain.seal:
            self._report(name, f"checkpoint {signed[1]} signed another seal: history was rewritten")

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

    def wallet(self, line: dict[str, Any]) -> None:
        chain = self._chains.pop(line["id"], None) or Chain()
        self._check_complete(line["id"], chain)
        balance, count = money(line["balance"]), line["entry_count"]
        if (balance, count) != (chain.balance, chain.count):
            self._report(
                title(line["id"]),
                f"says balance {balance} after {count} entries; "
                f"its entries say {chain.balance} after {chain.count}",
            )

    def close(self) -> None:
        """Everything has been read: what is still open is a breach."""
        if outside := self._chains.pop(OUTSIDE, None):
            self._check_complete(OUTSIDE, outside)
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

    def _check_complete(self, wallet_id: str, chain: Chain) -> None:
        if chain.waiting:
            detail = f"entry {chain.count + 1} is missing, later ones are there"
            self._report(title(wallet_id), detail)


def title(wallet_id: str) -> str:
    return "transactions outside all wallets" if wallet_id == OUTSIDE else f"wallet {wallet_id}"


def money(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except (InvalidOperation, TypeError) as exc:
        raise Unreadable(f"{text!r} is not an amount") from exc
    if not amount.is_finite():
        raise Unreadable(f"{text!r} is not an amount")
    return amount


# --- Files ---------------------------------------------------------------------------------------


def check_export(
    file: Iterable[str], report: Report, keys: Collection[bytes], kept: list[str]
) -> str:
    """Check a whole export; `kept` are payloads of checkpoints. Returns what was checked."""
    lines = read_lines(file)
    header: dict[str, Any] = next(lines, {"kind": "nothing"})
    if header["kind"] != "header" or header["format"] != EXPORT_FORMAT:
        raise Unreadable(f"this is not an export in the format {EXPORT_FORMAT}")
    trusted = keys or {base64.b64decode(key["public_key"]) for key in header["public_keys"]}
    numbers = {json.loads(payload)["number"]: payload for payload in kept}
    checkpoints = Checkpoints(report, trusted, set(numbers))
    ledger = Ledger(report, header["wallet_id"])
    read_body(lines, checkpoints, ledger, report)
    ledger.close()
    for number, payload in numbers.items():
        if checkpoints.payloads.get(number) != payload:
            report(f"checkpoint {number}", "is not the one that you kept: history was rewritten")
    scope = title(header["wallet_id"]) if header["wallet_id"] else "the whole ledger"
    return f"{scope}: {ledger.entries} entries and {checkpoints.number} checkpoints"


def read_lines(file: Iterable[str]) -> Iterator[dict[str, Any]]:
    for text in file:
        line = json.loads(text)
        if not isinstance(line, dict) or "kind" not in line:
            raise Unreadable("a line is not a JSON object with a kind")
        yield line


def read_body(
    lines: Iterable[dict[str, Any]], checkpoints: Checkpoints, ledger: Ledger, report: Report
) -> None:
    """Everything after the header: checkpoints with their leaves, transactions, wallets."""
    count, end = 1, None
    for line in lines:
        count += 1
        kind = line["kind"]
        if kind == "leaf":
            seal = bytes.fromhex(line["seal"])
            checkpoints.leaf(line["wallet_id"], line["entry_count"], seal)
            ledger.heads[line["wallet_id"], line["entry_count"]] = (seal, checkpoints.number)
            continue
        checkpoints.close()
        if kind == "checkpoint":
            checkpoints.open(line, has_leaves=ledger.is_whole)
        elif kind == "proof":
            seal = check_proof(line, checkpoints.last, report)
            ledger.heads[line["wallet_id"], line["entry_count"]] = (seal, checkpoints.number)
        elif kind == "transaction":
            ledger.transaction(line)
        elif kind == "wallet":
            ledger.wallet(line)
        elif kind == "end":
            end = line
        else:
            raise Unreadable(f"a line of the unknown kind {kind!r}")
    if end is None or end["lines"] != count:
        report("the export", "is incomplete: lines are missing")


def kept_payloads(paths: Iterable[str]) -> Iterator[str]:
    """The payloads in files that hold a checkpoint, or a page of them, as the API gives them."""
    for path in paths:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        for checkpoint in found.get("results", [found]):
            yield checkpoint["payload"]


def run_export(options: argparse.Namespace, keys: set[bytes], report: Report) -> str:
    kept = list(kept_payloads(options.checkpoint))
    if options.export == "-":
        return check_export(sys.stdin, report, keys, kept)
    with open(options.export, encoding="utf-8") as file:
        return check_export(file, report, keys, kept)


def run_proof(options: argparse.Namespace, keys: set[bytes], report: Report) -> str:
    with open(options.proof, encoding="utf-8") as file:
        proof = json.load(file)
    checkpoint = proof["checkpoint"]
    trusted = keys or {base64.b64decode(checkpoint["public_key"])}
    signed = read_signed(checkpoint, trusted, report)
    check_proof(proof, signed, report)
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


def main(words: list[str] | None = None) -> int:
    options = read_options(words)
    report = Report(sys.stdout)
    run = run_proof if options.proof else run_export
    try:
        keys = {base64.b64decode(key, validate=True) for key in options.public_key}
        checked = run(options, keys, report)
    except (Unreadable, OSError, ValueError, KeyError, TypeError) as exc:
        sys.stderr.write(f"This cannot be read: {type(exc).__name__}: {exc}\n")
        return 2
    if not keys:
        sys.stdout.write(
            "The keys are those that the file names: compare them with the real ones.\n"
        )
    verdict = f"{report.count} breaches" if report.count else "sound"
    sys.stdout.write(f"{checked}: {verdict}\n")
    return 1 if report.count else 0


if __name__ == "__main__":
    sys.exit(main())
