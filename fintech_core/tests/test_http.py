"""What holds for every request: ids, headers, limits, metrics, problems."""

import json
import re
import socket
import time

import pytest
from django.http import BadHeaderError, HttpResponse
from django.test import Client, RequestFactory

from fintech_core import views
from fintech_core.exceptions import TITLES
from fintech_core.middleware import Headers
from fintech_core.ratelimit import account_key, address_key, client_ip
from transactions.tests.helpers import at_once, client_of, person
from users.tests.helpers import refusal

pytestmark = pytest.mark.django_db


class TestRequestId:
    def test_given_a_good_id_when_calling_then_it_is_kept(self):
        response = Client().get("/api/health/live/", headers={"X-Request-ID": "abc-1.2_3"})
        assert response["X-Request-ID"] == "abc-1.2_3"

    @pytest.mark.parametrize("given", ["", "a b", "x" * 65, "é", "a\tb", "<script>"])
    def test_given_a_bad_id_when_calling_then_a_new_one_is_made(self, given):
        response = Client().get("/api/health/live/", headers={"X-Request-ID": given})
        assert re.fullmatch(r"[0-9a-f]{32}", response["X-Request-ID"])

    def test_given_a_refusal_when_calling_then_the_problem_carries_the_id(self):
        response = Client().get("/api/v1/nothing/", headers={"X-Request-ID": "mine"})
        problem = json.loads(response.content)
        assert (problem["request_id"], response["X-Request-ID"]) == ("mine", "mine")
        assert problem["instance"] == "/api/v1/nothing/"


class TestProblems:
    def test_given_a_host_that_is_not_ours_when_calling_then_400_as_a_problem(self):
        response = Client().get("/api/v1/users/me/", headers={"Host": "evil.example"})
        assert response.status_code == 400
        assert response["Content-Type"] == "application/problem+json"

    def test_given_an_unexpected_failure_when_calling_then_500_without_a_word_about_it(
        self, monkeypatch
    ):
        def fail(*_: object) -> None:
            raise RuntimeError("SELECT secret FROM table")

        monkeypatch.setattr("wallet.queries.wallet_of", fail)
        client = client_of(person())
        client.raise_request_exception = False
        response = client.get("/api/v1/wallets/me/")
        assert response.status_code == 500
        assert json.loads(response.content)["code"] == "internal_error"
        assert b"secret" not in response.content

    def test_given_a_type_when_looking_it_up_then_it_is_explained(self):
        for code in ("insufficient_funds", "validation_error", "rate_limited"):
            assert Client().get(f"/problems/{code}").json()["code"] == code
        assert Client().get("/problems/unheard_of").status_code == 404

    def test_given_every_code_when_listing_them_then_each_has_a_title(self):
        assert all(TITLES.values())
        assert "kyc_required" in views._all_refusals()

    def test_given_a_path_without_its_slash_when_posting_then_404_and_no_redirect(self):
        assert Client().post("/api/v1/auth/login").status_code == 404


class TestOtherMethods:
    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
    @pytest.mark.parametrize(
        "path",
        [
            "/",
            "/admin",
            "/metrics",
            "/problems/not_found",
            "/api/health/",
            "/api/health/live/",
            "/api/health/ready/",
            "/api/schema/",
            "/api/docs/",
        ],
    )
    def test_given_what_is_only_read_when_written_to_then_405_as_a_problem(self, method, path):
        response = Client(enforce_csrf_checks=True).generic(method, path)
        assert response.status_code == 405
        assert response["Content-Type"] == "application/problem+json"
        assert "GET" in response["Allow"]
        assert json.loads(response.content)["code"] == "method_not_allowed"

    @pytest.mark.parametrize("path", ["/api/schema/", "/api/docs/"])
    def test_given_a_form_that_is_not_there_when_describing_the_api_then_406_as_a_problem(
        self, path
    ):
        response = Client().get(path, headers={"Accept": "image/png"})
        assert response.status_code == 406
        assert response["Content-Type"] == "application/problem+json"
        assert json.loads(response.content)["code"] == "not_acceptable"

    @pytest.mark.parametrize("query", ["version=a%0d%0ab", "version=%00", "lang=%00", "lang=../.."])
    def test_given_a_strange_query_when_describing_the_api_then_200(self, query):
        assert Client().get(f"/api/schema/?{query}").status_code == 200
        assert Client().get(f"/api/docs/?{query}").status_code == 200


class TestEncodings:
    @pytest.mark.parametrize(
        "charset",
        ["idna", "punycode", "base64", "hex", "rot13", "zlib", "undefined", "utf-16", "latin-1"],
    )
    @pytest.mark.parametrize(
        "path", ["/admin/login/", "/api/v1/users/me/kyc/", "/api/v1/auth/login/", "/api/health/"]
    )
    @pytest.mark.parametrize(
        ("kind", "body"),
        [
            ("application/x-www-form-urlencoded", b"username=a%80&password=b%FF\x80"),
            (
                "multipart/form-data; boundary=x",
                b'--x\r\nContent-Disposition: form-data; name="username"\r\n\r\n\x80\r\n--x--\r\n',
            ),
        ],
    )
    def test_given_another_encoding_than_utf_8_when_sending_then_400_as_a_problem(
        self, charset, path, kind, body
    ):
        response = Client().generic("POST", path, body, content_type=f"{kind}; charset={charset}")
        assert response.status_code == 400
        assert json.loads(response.content)["code"] == "parse_error"

    @pytest.mark.parametrize("charset", ["utf-8", "UTF8", "us-ascii", "nonsense", ""])
    def test_given_utf_8_or_what_nobody_knows_when_sending_then_it_is_read(self, charset):
        response = Client().generic(
            "POST",
            "/api/v1/auth/login/",
            b'{"email": "a@example.com", "password": "x"}',
            content_type=f"application/json; charset={charset}",
        )
        assert response.status_code == 401

    @pytest.mark.parametrize("path", ["/admin/login/", "/api/v1/users/me/kyc/"])
    @pytest.mark.parametrize(
        "part",
        [
            b"form-data; name*=hex''city",
            b"form-data; name*=nonsense''city",
            b"form-data; name=city; filename*=idna''%ff",
            b'form-data; name="city"\r\nContent-Type: text/plain; charset=hex',
            b'form-data; name="city"\r\nContent-Transfer-Encoding: base64',
        ],
    )
    def test_given_a_part_of_a_form_with_an_encoding_when_sending_then_no_failure(self, path, part):
        body = b"--x\r\nContent-Disposition: " + part + b"\r\n\r\n\x80\r\n--x--\r\n"
        client = client_of(person())
        client.raise_request_exception = False
        response = client.generic(
            "POST", path, body, content_type="multipart/form-data; boundary=x"
        )
        assert response.status_code < 500

    @pytest.mark.parametrize(
        "value", ["*/*; q*=hex''a", "*/*; q*=nonsense''a", "a/b; x*=idna''%ff"]
    )
    def test_given_an_encoding_in_a_header_when_calling_then_no_failure(self, value):
        client = client_of(person())
        client.raise_request_exception = False
        assert client.get("/api/v1/users/me/", headers={"Accept": value}).status_code < 500


class TestTooMany:
    """Of whatever is counted before anything is read: no field of it can be named."""

    def test_given_more_query_parameters_than_a_hundred_when_asking_then_parse_error(self):
        client = client_of(person())
        query = "&".join(f"a{number}=1" for number in range(101))
        for path in ("/api/v1/transactions/", "/api/v1/wallets/me/balance/", "/api/v1/users/me/"):
            assert client.get(f"{path}?{query.removesuffix('&a100=1')}").status_code == 200
        response = client.get(f"/api/v1/transactions/?{query}")
        assert refusal(response) == (400, "parse_error")
        assert "errors" not in response.json()

    @pytest.mark.parametrize("file_name", ["", '; filename="a.pdf"'])
    def test_given_more_parts_of_a_form_than_a_hundred_when_sending_then_parse_error(
        self, file_name
    ):
        part = f'--x\r\nContent-Disposition: form-data; name="a%d"{file_name}\r\n\r\n1\r\n'
        body = "".join(part % number for number in range(110)) + "--x--\r\n"
        response = client_of(person()).generic(
            "POST", "/api/v1/users/me/kyc/", body, "multipart/form-data; boundary=x"
        )
        assert refusal(response) == (400, "parse_error")
        assert "errors" not in response.json()


class TestHeaders:
    def test_given_an_answer_of_the_api_when_reading_its_headers_then_nobody_may_keep_it(self):
        client = client_of(person())
        for path, status in [("users/me/", 200), ("nothing/", 404), ("users/", 403)]:
            response = client.get(f"/api/v1/{path}")
            assert (response.status_code, response["Cache-Control"]) == (status, "no-store")
        assert Client().post("/api/v1/auth/login/")["Cache-Control"] == "no-store"

    def test_given_any_answer_when_reading_its_headers_then_it_is_hardened(self):
        response = Client().get("/api/health/live/")
        assert response["X-Content-Type-Options"] == "nosniff"
        assert response["X-Frame-Options"] == "DENY"
        assert response["Referrer-Policy"] == "same-origin"
        assert "frame-ancestors 'none'" in response["Content-Security-Policy"]

    def test_given_an_origin_when_it_is_allowed_then_and_only_then_it_may_read(self, settings):
        settings.CORS_ALLOWED_ORIGINS = ["https://app.example.com"]
        ours = Client().get("/api/health/live/", headers={"Origin": "https://app.example.com"})
        other = Client().get("/api/health/live/", headers={"Origin": "https://evil.example"})
        assert ours["Access-Control-Allow-Origin"] == "https://app.example.com"
        assert "Access-Control-Allow-Origin" not in other


class TestMetrics:
    def test_given_loopback_when_scraping_then_the_metrics(self):
        response = Client().get("/metrics")
        assert response.status_code == 200
        assert b"django_http_requests_total" in response.content

    def test_given_a_request_when_scraping_then_it_is_counted_and_timed_by_its_view(self):
        Client().get("/api/health/live/")
        Client().generic("BREW", "/api/health/live/")
        scraped = Client().get("/metrics").content.decode()
        for sample in (
            'django_http_requests_total_by_method_total{method="GET"}',
            'django_http_responses_total_by_status_view_method_total{method="GET",status="200",view="health-live"}',
            'django_http_requests_latency_seconds_by_view_method_count{method="GET",view="health-live"}',
            'django_http_requests_total_by_method_total{method="<invalid method>"}',
        ):
            assert sample in scraped
        assert "BREW" not in scraped

    @pytest.mark.parametrize(
        "caller",
        [
            {"REMOTE_ADDR": "203.0.113.9"},
            {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "203.0.113.9"},
            {"REMOTE_ADDR": "127.0.0.1", "HTTP_FORWARDED": "for=203.0.113.9"},
            {"REMOTE_ADDR": "203.0.113.9", "HTTP_X_FORWARDED_FOR": "127.0.0.1"},
            {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_PROTO": "https"},
            {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_REAL_IP": "203.0.113.9"},
            {"REMOTE_ADDR": "127.0.0.1", "HTTP_VIA": "1.1 proxy"},
            {"REMOTE_ADDR": "203.0.113.9", "HTTP_AUTHORIZATION": "Bearer wrong"},
            {"REMOTE_ADDR": "203.0.113.9", "HTTP_AUTHORIZATION": "Bearer "},
        ],
    )
    def test_given_somebody_else_when_scraping_then_there_is_nothing(self, caller, settings):
        assert Client().get("/metrics", **caller).status_code == 404
        settings.METRICS_TOKEN = "scraper"
        assert Client().get("/metrics", **caller).status_code == 404

    def test_given_the_token_when_scraping_from_afar_then_the_metrics(self, settings):
        settings.METRICS_TOKEN = "scraper"
        headers = {"Authorization": "Bearer scraper"}
        assert Client(REMOTE_ADDR="203.0.113.9").get("/metrics", headers=headers).status_code == 200


class TestClientAddress:
    @pytest.mark.parametrize(
        ("hops", "forwarded", "expected"),
        [
            (0, "1.1.1.1", "10.0.0.1"),
            (0, "", "10.0.0.1"),
            (1, "1.1.1.1", "1.1.1.1"),
            (1, "6.6.6.6, 1.1.1.1", "1.1.1.1"),
            (2, "6.6.6.6, 1.1.1.1, 2.2.2.2", "1.1.1.1"),
            (2, "1.1.1.1", "10.0.0.1"),
            (1, "", "10.0.0.1"),
            (1, "1.1.1.1:8443", "1.1.1.1"),
            (1, "[2001:db8::1]:8443", "2001:db8::1"),
            (1, "2001:DB8::1", "2001:db8::1"),
            (1, "::ffff:1.1.1.1", "1.1.1.1"),
            (1, "[::ffff:1.1.1.1]:8443", "1.1.1.1"),
            (1, "nonsense", "10.0.0.1"),
        ],
    )
    def test_given_proxies_when_asking_for_the_address_then_only_theirs_are_believed(
        self, settings, hops, forwarded, expected
    ):
        settings.TRUSTED_PROXY_COUNT = hops
        request = RequestFactory().get("/", REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR=forwarded)
        assert client_ip(request) == expected

    def test_given_one_customers_ipv6_addresses_when_counting_then_they_are_one(self, settings):
        settings.TRUSTED_PROXY_COUNT = 1
        keys = {
            address_key(RequestFactory().get("/", HTTP_X_FORWARDED_FOR=f"2001:db8:0:1::{n:x}"))
            for n in range(1, 9)
        }
        assert keys == {"ip:2001:db8:0:1::/64"}

    def test_given_ipv4_behind_a_proxy_that_listens_on_ipv6_when_counting_then_not_all_are_one(
        self, settings
    ):
        settings.TRUSTED_PROXY_COUNT = 1
        keys = {
            address_key(RequestFactory().get("/", HTTP_X_FORWARDED_FOR=f"::ffff:192.0.2.{n}"))
            for n in range(1, 9)
        }
        assert keys == {f"ip:192.0.2.{n}" for n in range(1, 9)}

    def test_given_one_account_in_many_spellings_when_counting_then_it_is_one(self):
        spellings = ["admin@example.com", " ADMIN@Example.com ", "\uff41dmin@example.com"]
        assert {account_key(spelling) for spelling in spellings} == {"account:admin@example.com"}

    @pytest.mark.parametrize(
        "forwarded", ["nonsense", "1.1.1.1:80", "<script>", "::1%eth0", "٣.1.1.1"]
    )
    def test_given_an_address_that_is_none_when_a_proxy_forwards_it_then_nothing_breaks(
        self, settings, forwarded
    ):
        settings.TRUSTED_PROXY_COUNT = 1
        response = Client().post(
            "/api/v1/auth/login/",
            {"email": "a@example.com", "password": "x"},
            content_type="application/json",
            HTTP_X_FORWARDED_FOR=forwarded.encode().decode("latin-1"),
        )
        assert response.status_code == 401


@pytest.mark.django_db(transaction=True)
def test_given_forged_addresses_and_parallel_requests_when_logging_in_then_the_limit_holds():
    def attempt(number):
        return Client().post(
            "/api/v1/auth/login/",
            {"email": f"person{number}@example.com", "password": "wrong"},
            content_type="application/json",
            headers={"X-Forwarded-For": f"198.51.100.{number}"},
        )

    responses = at_once(*[lambda number=number: attempt(number) for number in range(16)])
    codes = sorted(response.status_code for response in responses)
    assert codes == [401] * 10 + [429] * 6
    assert all(r["Retry-After"] for r in responses if r.status_code == 429)


def test_given_a_broker_that_hangs_when_asking_for_health_then_it_is_told_soon(settings):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.CELERY_BROKER_URL = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        started = time.monotonic()
        health = Client().get("/api/health/").json()
    assert (health["status"], health["checks"]["broker"]) == ("degraded", "unavailable")
    assert time.monotonic() - started < 3


def test_given_the_switch_is_off_when_hurrying_then_there_is_no_limit(settings):
    settings.RATELIMIT_ENABLE = False
    body = {"email": "a@example.com", "password": "x"}
    codes = {
        Client().post("/api/v1/auth/login/", body, content_type="application/json").status_code
        for _ in range(12)
    }
    assert codes == {401}


def test_given_a_huge_body_of_unknown_fields_when_refusing_then_the_answer_stays_small():
    body = {f"field{number}": 1 for number in range(50_000)} | {"x" * 10_000: 1}
    response = Client().post("/api/v1/auth/verify/", body, content_type="application/json")
    assert response.status_code == 400
    assert len(response.content) < 10_000


def test_given_a_body_over_the_limit_when_refusing_then_an_allowed_origin_may_read_it(settings):
    settings.CORS_ALLOWED_ORIGINS = ["https://app.example.com"]
    response = Client().post(
        "/api/v1/auth/login/",
        "x" * (settings.BODY_LIMIT + 1),
        content_type="application/json",
        headers={"Origin": "https://app.example.com"},
    )
    assert response.status_code == 413
    assert response["Access-Control-Allow-Origin"] == "https://app.example.com"


def test_given_headers_when_taken_over_then_they_say_the_same_as_djangos():
    response = HttpResponse(headers={"Vary": "origin", "X-Request-ID": "a"})
    theirs, ours = response.headers, Headers.of(response.headers)
    assert [*ours.items()] == [*theirs.items()]
    assert ("vary" in ours, "Age" in ours, len(ours)) == (True, False, len(theirs))
    ours.setdefault("VARY", "cookie")
    ours["Age"] = "1"
    assert (ours["vary"], theirs["age"]) == ("origin", "1")
    with pytest.raises(BadHeaderError):
        ours["Age"] = "1\r\nSet-Cookie: a=b"
