"""A server that speaks Stripe's shape, on a real socket: forms in, JSON out, errors and idempotency
keys as https://docs.stripe.com/api describes them. It keeps what it was asked, and misbehaves when
told to."""

import hashlib
import json
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from urllib.parse import parse_qsl, urlsplit

KEY = "sk_test_51NotARealKeyOfAnybody"
ACCOUNT = "acct_1PayoutsOfThePlatform"


def nested(form):
    """`metadata[a]=1` as {"metadata": {"a": "1"}}; `expand[0]` likewise."""
    members = {}
    for name, value in form:
        *path, last = name.replace("]", "").split("[")
        place = members
        for step in path:
            place = place.setdefault(step, {})
        place[last] = value
    return members


class Refusal(Exception):
    def __init__(self, status, **error):
        self.status, self.error = status, error


class StripeServer:
    """with StripeServer() as stripe: … stripe.url … stripe.asked … stripe.intents

    `misbehave` is a list of what the next requests meet: a status with an error, "reset", "slow".
    """

    def __init__(self, now=time.time):
        self.now = now
        self.asked = []  # (method, path, members, headers)
        self.misbehave = []
        self.objects = {}
        self.bank_accounts = {}
        self.booked = []
        self.slow_seconds = 2.0
        self._answers = {}
        self._numbers = count(1)
        self._lock = threading.RLock()

    def __enter__(self):
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def of_kind(self, kind):
        return [made for made in self.objects.values() if made["object"] == kind]

    def posts(self, path):
        return [
            members for method, where, members, _ in self.asked if (method, where) == ("POST", path)
        ]

    def new_id(self, prefix):
        return f"{prefix}_{next(self._numbers):024d}"

    def book(self, kind, source, created):
        """A balance transaction, as the report lists it."""
        self.booked.append(
            {
                "id": self.new_id("txn"), "object": "balance_transaction", "type": kind,
                "amount": source["amount"], "net": source["amount"] - 30, "fee": 30,
                "currency": source["currency"], "created": created, "source": source,
            }
        )  # fmt: skip

    # --- What it answers

    def answer(self, method, path, members, headers):
        if headers.get("Authorization") != f"Bearer {KEY}":
            raise Refusal(401, type="invalid_request_error", message="Invalid API Key provided.")
        key = headers.get("Idempotency-Key")
        with self._lock:
            if method != "POST" or key is None:
                return self.effect(method, path, members, headers)
            asked = (path, json.dumps(members, sort_keys=True))
            if key in self._answers:
                earlier, answer = self._answers[key]
                if earlier != asked:
                    raise Refusal(
                        400, type="idempotency_error", message="Keys are for one request."
                    )
                return answer
            try:
                answer = (200, self.effect(method, path, members, headers)[1])
            except Refusal as refusal:
                answer = (refusal.status, {"error": refusal.error})
            self._answers[key] = (asked, answer)
            return answer

    def forget_keys(self):
        """As Stripe does after 24 hours."""
        self._answers.clear()

    def effect(self, method, path, members, headers):
        _, version, kind, *rest = path.split("/")
        assert version == "v1", path
        if method == "POST":
            if kind == "accounts":
                return 200, self._attach(rest[0], members)
            return 200, getattr(self, f"_new_{kind}")(members, headers)
        if kind == "accounts":
            return 200, self._page(path, list(self.bank_accounts.values()), members)
        if kind == "balance_transactions":
            return 200, self._page(path, self._booked_within(members["created"], headers), members)
        if rest:
            return 200, self._found(rest[0])
        wanted = {
            name: members[name] for name in ("destination", "payment_intent") if name in members
        }
        listed = [
            made for made in self.of_kind({"payouts": "payout", "refunds": "refund"}[kind])
            if wanted.items() <= made.items()
        ]  # fmt: skip
        return 200, self._page(path, listed[::-1], members)

    def _page(self, path, listed, members):
        ids = [each["id"] for each in listed]
        begin = ids.index(members["starting_after"]) + 1 if "starting_after" in members else 0
        end = begin + min(int(members.get("limit", 10)), 2)  # small, so that there are pages
        return {
            "object": "list", "data": listed[begin:end], "has_more": end < len(listed),
            "url": path,
        }  # fmt: skip

    def _booked_within(self, created, headers):
        kinds = {"payout"} if headers.get("Stripe-Account") else {"charge", "refund"}
        return [
            each for each in self.booked
            if int(created["gte"]) <= each["created"] < int(created["lt"])
            and each["source"]["object"] in kinds
        ]  # fmt: skip

    def _found(self, reference):
        if reference not in self.objects:
            raise Refusal(
                404, type="invalid_request_error", code="resource_missing", param="id",
                message=f"No such object: '{reference}'",
            )  # fmt: skip
        return self.objects[reference]

    def _new_payment_intents(self, members, headers):
        amount = int(members["amount"])
        if amount < 50:
            raise Refusal(
                400, type="invalid_request_error", code="amount_too_small", param="amount",
                message="Amount must be at least $0.50 usd",
            )  # fmt: skip
        made = self.new_id("pi")
        self.objects[made] = {
            "id": made, "object": "payment_intent", "amount": amount, "amount_received": 0,
            "amount_capturable": 0, "automatic_payment_methods": {"enabled": True},
            "client_secret": f"{made}_secret_abc", "currency": members["currency"],
            "created": int(self.now()), "last_payment_error": None, "livemode": False,
            "metadata": members["metadata"], "status": "requires_payment_method",
        }  # fmt: skip
        return self.objects[made]

    def _new_tokens(self, members, headers):
        account = members["bank_account"]
        print_of = hashlib.sha256(account["account_number"].encode()).hexdigest()[:16]
        made = {
            "id": self.new_id("btok"), "object": "token", "type": "bank_account", "used": False,
            "bank_account": {
                "id": self.new_id("ba"), "object": "bank_account", "fingerprint": print_of,
                "country": account["country"], "currency": account["currency"],
                "last4": account["account_number"][-4:],
            },
        }  # fmt: skip
        self.objects[made["id"]] = made
        return made

    def _attach(self, account, members):
        assert account == ACCOUNT
        bank_account = self._found(members["external_account"])["bank_account"]
        if bank_account["fingerprint"] in self.bank_accounts:
            raise Refusal(
                400, type="invalid_request_error", code="bank_account_exists",
                message="A bank account with that routing number and account number already exists",
            )  # fmt: skip
        self.bank_accounts[bank_account["fingerprint"]] = bank_account
        return bank_account

    def _new_payouts(self, members, headers):
        assert headers.get("Stripe-Account") == ACCOUNT
        made = self.new_id("po")
        self.objects[made] = {
            "id": made, "object": "payout", "amount": int(members["amount"]), "automatic": False,
            "currency": members["currency"], "created": int(self.now()), "failure_code": None,
            "destination": members["destination"], "metadata": members["metadata"],
            "status": "pending", "type": "bank_account",
        }  # fmt: skip
        return self.objects[made]

    def _new_refunds(self, members, headers):
        intent = self._found(members["payment_intent"])
        if int(members["amount"]) > intent["amount_received"]:
            raise Refusal(
                400, type="invalid_request_error", code="charge_already_refunded",
                message="Charge has already been refunded.",
            )  # fmt: skip
        made = self.new_id("re")
        self.objects[made] = {
            "id": made, "object": "refund", "amount": int(members["amount"]),
            "currency": intent["currency"], "created": int(self.now()),
            "metadata": members["metadata"], "payment_intent": intent["id"], "status": "pending",
        }  # fmt: skip
        return self.objects[made]

    # --- HTTP

    def _handler(server):  # noqa: N805 - the handler's own `self` is another
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self._serve("GET", nested(parse_qsl(urlsplit(self.path).query)))

            def do_POST(self):
                length = int(self.headers.get("Content-Length") or 0)
                self._serve("POST", nested(parse_qsl(self.rfile.read(length).decode())))

            def _serve(self, method, members):
                path = urlsplit(self.path).path
                server.asked.append((method, path, members, dict(self.headers)))
                fault = server.misbehave.pop(0) if server.misbehave else None
                if fault == "reset":
                    linger = struct.pack("ii", 1, 0)  # close with RST
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.close_connection = True
                    self.connection.close()
                    return
                if fault == "reset after":  # done, and the answer is lost
                    server.answer(method, path, members, self.headers)
                    self.close_connection = True
                    return
                if fault == "slow":
                    time.sleep(server.slow_seconds)
                if isinstance(fault, Refusal):
                    self._say(fault.status, {"error": fault.error})
                    return
                try:
                    self._say(*server.answer(method, path, members, self.headers))
                except Refusal as refusal:
                    self._say(refusal.status, {"error": refusal.error})

            def _say(self, status, document):
                body = json.dumps(document).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Request-Id", "req_test")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:  # whoever asked has hung up
                    self.close_connection = True

            def log_message(self, *_):
                pass

        return Handler
