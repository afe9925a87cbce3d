"""API_DOCUMENTATION.md says what the OpenAPI document and the code say, and its examples work."""

import json
import os
import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from django.conf import settings
from django.test import Client
from django.urls import resolve
from jsonschema import Draft202012Validator

from fintech_core.exceptions import TITLES, DomainError, plain_problem
from fintech_core.schema import CODES
from payments.models import WebhookEvent

PROJECT = Path(settings.BASE_DIR)
PAGE = (PROJECT / "API_DOCUMENTATION.md").read_text()
OPENAPI = yaml.safe_load((PROJECT / "docs" / "openapi.yaml").read_text())
METHODS = {"get", "post", "put", "patch", "delete"}
SAID_ONCE = {406, 413, 415, 500, 503}  # "any call may answer": not repeated for each
INTERNAL = {"wallet_closed"}  # no call answers it

HEADING = re.compile(r"^### ([A-Z]+) (/\S+)$", re.MULTILINE)
JSON_BLOCK = re.compile(r"^```json\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LABELLED_JSON = re.compile(
    r"^(Request|Answer (\d{3}))[^\n]*:\n\n```json\n(.*?)^```$", re.MULTILINE | re.DOTALL
)


def sections() -> dict[tuple[str, str], str]:
    """Method and path → what is written about it."""
    parts = re.split(r"^(?=##)", PAGE, flags=re.MULTILINE)
    found = {}
    for part in parts:
        if heading := HEADING.match(part):
            assert heading.groups() not in found
            found[heading[1], heading[2]] = part
    return found


def operations() -> dict[tuple[str, str], dict]:
    return {
        (method.upper(), path): item[method]
        for path, item in OPENAPI["paths"].items()
        for method in METHODS & set(item)
    }


CALLS = {call: text for call, text in sections().items() if call[1].startswith("/api/v1/")}
OTHERS = sections().keys() - CALLS.keys()


def public_codes(base: type[DomainError] = DomainError) -> dict[str, int]:
    """Every code that the code has → its status."""
    by_status = {code: status for status, codes in CODES.items() for code in codes}
    by_status |= {plain_problem(status).code: status for status in (405, 500)}
    found = {code: by_status[code] for code in TITLES}
    for refusal in subclasses(base):
        if ".tests." not in refusal.__module__:
            found[refusal.code] = refusal.status
    return found


def subclasses(base: type) -> list[type]:
    return [one for sub in base.__subclasses__() for one in (sub, *subclasses(sub))]


def test_given_every_operation_when_compared_with_openapi_then_the_same():
    assert sorted(CALLS) == sorted(operations())


@pytest.mark.parametrize("call", sorted(OTHERS))
def test_given_a_path_beside_the_api_when_looked_up_then_a_view_answers(call):
    method, path = call
    assert method == "GET"
    assert resolve(path.replace("{code}", "not_found"))


class TestErrors:
    def test_given_the_table_when_compared_with_the_code_then_the_same(self):
        table = re.findall(r"^\| (\d{3}) \| `(\w+)` \| \S", PAGE, re.MULTILINE)
        documented = {code: int(status) for status, code in table}
        assert len(table) == len(documented)
        public = {code: status for code, status in public_codes().items() if code not in INTERNAL}
        assert documented == public
        assert all(f"`{code}`" in PAGE for code in INTERNAL)

    @pytest.mark.parametrize("call", sorted(CALLS))
    def test_given_a_call_when_its_errors_are_read_then_code_and_openapi_agree(self, call):
        public = public_codes()
        found = re.findall(r"`(\d{3}) (\w+)`", CALLS[call])
        errors = [(int(status), code) for status, code in found]
        assert [(s, c) for s, c in errors if public.get(c) != s or c in INTERNAL] == []
        answers = {int(status) for status in operations()[call]["responses"]}
        said = {status for status, _ in errors}
        assert said - answers == set()
        assert {status for status in answers if status >= 400} - said - SAID_ONCE == set()

    @pytest.mark.parametrize("call", sorted(CALLS))
    def test_given_a_call_for_who_is_signed_in_when_read_then_both_refusals_are_named(self, call):
        if {} not in operations()[call].get("security", [{}]):
            assert "`401 not_authenticated`" in CALLS[call]
            assert "`401 token_not_valid`" in CALLS[call]


class TestExamples:
    def test_given_every_json_block_when_read_then_it_is_json(self):
        blocks = JSON_BLOCK.findall(PAGE)
        assert len(blocks) > 30
        for block in blocks:
            json.loads(block)

    @pytest.mark.parametrize("call", sorted(CALLS))
    def test_given_an_example_when_compared_with_openapi_then_it_fits(self, call):
        operation = operations()[call]
        examples = LABELLED_JSON.findall(CALLS[call])
        assert len(examples) == len(JSON_BLOCK.findall(CALLS[call])), "an example without a label"
        for _, status, example in examples:
            part = operation["responses"][status] if status else operation["requestBody"]
            # The OpenAPI document leaves an answer without members out.
            content = part.get("content", {"application/json": {"schema": {"maxProperties": 0}}})
            schema = content["application/json"]["schema"]
            Draft202012Validator(schema | {"components": OPENAPI["components"]}).validate(
                json.loads(example)
            )

    @pytest.mark.parametrize("call", sorted(CALLS))
    def test_given_a_success_when_compared_with_openapi_then_that_status(self, call):
        said = set(re.findall(r"\bAnswer (\d{3})", CALLS[call]))
        answers = {status for status in operations()[call]["responses"] if status < "400"}
        assert said == answers

    @pytest.mark.parametrize("call", sorted(CALLS))
    def test_given_a_body_when_sent_then_the_page_shows_one(self, call):
        content = operations()[call].get("requestBody", {}).get("content", {})
        empty = any("NoBody" in str(form.get("schema")) for form in content.values())
        assert ("\nRequest:\n" in CALLS[call]) == (bool(content) and not empty)


def test_given_a_rate_when_compared_with_the_settings_then_the_same():
    rows = re.findall(r"\| (\d+) a minute \| `(RATE_LIMIT_\w+)` \|", PAGE)
    assert {name for _, name in rows} == {n for n in dir(settings) if n.startswith("RATE_LIMIT_")}
    for number, name in rows:
        assert getattr(settings, name) == f"{number}/m"


def test_given_a_fixed_rate_when_compared_with_the_settings_then_the_same():
    rows = re.findall(r"\| (\d+) an? (minute|hour) \| \|", PAGE)
    fixed = [getattr(settings, name) for name in dir(settings) if name.endswith("_RATE")]
    assert sorted(f"{count}/{period[0]}" for count, period in rows) == sorted(fixed)


class TestSigningByHand:
    """The two recipes; whatever they sign is posted to the real webhook."""

    BODY = b'{"type": "nothing.special"}'

    def deliver(self, headers, body):
        return Client().post(
            "/api/v1/payments/webhooks/sandbox/",
            body,
            content_type="application/json",
            headers=headers,
        )

    @pytest.mark.django_db(transaction=True)
    def test_given_openssl_when_signing_as_shown_then_it_is_accepted(self):
        (recipe,) = re.findall(r"```bash\n(SECRET=.*?)```", PAGE, re.DOTALL)
        done = subprocess.run(
            ["bash", "-c", f"curl() {{ printf '%s\\0' \"$@\"; }}\nREFERENCE=sbx_1\n{recipe}"],
            env=os.environ,
            capture_output=True,
            check=True,
            timeout=20,
        )
        assert done.stderr == b""
        arguments = done.stdout.decode().split("\0")
        headers = dict(
            value.split(": ", 1)
            for option, value in pairwise(arguments)
            if option == "-H" and value.startswith("webhook-")
        )
        body = arguments[arguments.index("--data-binary") + 1].encode()
        assert self.deliver(headers, body).json() == {"received": True}
        stored = WebhookEvent.objects.get()
        assert (stored.event_type, stored.gateway_reference) == (
            "payment_intent.succeeded",
            "sbx_1",
        )

    @pytest.mark.django_db(transaction=True)
    def test_given_python_when_signing_as_shown_then_it_is_accepted(self):
        (recipe,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
        recipes = {}
        exec(recipe, recipes)
        headers = recipes["signed_headers"](settings.SANDBOX_WEBHOOK_SECRETS[0], self.BODY)
        assert self.deliver(headers, self.BODY).json() == {"received": True}
        assert self.deliver(headers, self.BODY + b" ").status_code == 400
