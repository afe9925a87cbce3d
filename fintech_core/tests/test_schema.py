"""The OpenAPI document and the API say the same: no warning, no drift, no surprise."""

from pathlib import Path

import pytest
import schemathesis
import yaml
from django.conf import settings
from django.core.management import call_command
from django.test import Client
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiYamlRenderer
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from fintech_core.wsgi import application
from transactions.tests.helpers import person
from users.tests.factories import ReviewerFactory, sign_in

COMMITTED = Path(settings.BASE_DIR) / "docs" / "openapi.yaml"
METHODS = {"get", "post", "put", "patch", "delete"}


def operations(document):
    for path, item in document["paths"].items():
        for method in METHODS & set(item):
            yield f"{method.upper()} {path}", item[method]


class TestDocument:
    def test_given_the_code_when_generating_then_it_is_valid_and_without_warning(self, tmp_path):
        call_command("spectacular", validate=True, fail_on_warn=True, file=str(tmp_path / "s.yaml"))

    def test_given_the_committed_document_when_generating_then_nothing_has_drifted(self):
        generated = OpenApiYamlRenderer().render(
            SchemaGenerator().get_schema(request=None, public=True), renderer_context={}
        )
        assert COMMITTED.read_bytes() == generated, "run: make schema"

    def test_given_the_document_when_reading_it_then_every_operation_explains_itself(self):
        document = yaml.safe_load(COMMITTED.read_text())
        assert document["openapi"].startswith("3.1")
        for name, operation in operations(document):
            assert operation.get("summary"), name
            assert any(status.startswith("2") for status in operation["responses"]), name
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert "application/problem+json" in response["content"], (name, status)

    def test_given_every_money_call_when_reading_it_then_the_key_is_required(self):
        document = yaml.safe_load(COMMITTED.read_text())
        for path in ("/api/v1/transactions/transfer/", "/api/v1/payments/intents/"):
            parameters = {p["name"]: p for p in document["paths"][path]["post"]["parameters"]}
            assert parameters["Idempotency-Key"]["required"] is True

    @pytest.mark.django_db
    def test_given_each_accept_header_when_asking_then_json_or_yaml(self):
        as_json = Client().get("/api/schema/", headers={"Accept": "application/json"})
        assert as_json.status_code == 200
        assert as_json.json()["openapi"].startswith("3.1")
        assert Client().get("/api/schema/").status_code == 200

    @pytest.mark.django_db
    def test_given_the_documentation_page_when_opening_it_then_it_needs_no_other_host(self):
        page = Client().get("/api/docs/")
        assert page.status_code == 200
        assert b"https://" not in page.content
        assert b"cdn" not in page.content


schema = schemathesis.openapi.from_wsgi("/api/schema/", application)


@pytest.fixture
def tokens(transactional_db, settings):
    settings.RATELIMIT_ENABLE = False
    return [sign_in(person("1000.00")).access, sign_in(ReviewerFactory()).access]


@schema.parametrize()
@hypothesis_settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_given_whatever_a_client_sends_when_calling_then_the_answer_is_as_documented(case, tokens):
    for token in tokens:
        response = case.call(headers={"Authorization": f"Bearer {token}"})
        case.validate_response(
            response,
            checks=[
                not_a_server_error,
                status_code_conformance,
                content_type_conformance,
                response_schema_conformance,
            ],
        )
