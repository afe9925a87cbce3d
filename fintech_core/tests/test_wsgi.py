"""What is remembered from one request to the next: which hosts are ours, and where views are."""

from io import BytesIO

import pytest
from django.core.exceptions import DisallowedHost
from django.urls import Resolver404, get_resolver

from fintech_core import wsgi

PATHS = [
    "/api/v1/transactions/transfer/",
    "/api/v1/wallets/me/balance/",
    "/api/v1/transactions/01890a5d-ac96-774b-bcce-b302099a8057/",
    "/problems/self_transfer",
    "/admin/login/",
]


def request(path="/", **more):
    sent = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "wsgi.input": BytesIO()}
    return wsgi.Request(sent | more)


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    monkeypatch.setattr(wsgi.Request, "_allowed_hosts", set())
    wsgi._view_at.cache_clear()


@pytest.mark.parametrize("path", PATHS)
def test_given_a_path_when_asked_for_again_then_the_view_and_names_that_django_finds(path):
    found = get_resolver().resolve(path)
    for _ in range(2):
        asked = request(path)
        match = wsgi.application.resolve_request(asked)
        assert (match.func, match.args, match.kwargs) == (found.func, found.args, found.kwargs)
        assert asked.resolver_match.route == found.route


def test_given_no_such_path_when_asked_for_again_then_neither_found_nor_kept():
    for _ in range(2):
        with pytest.raises(Resolver404):
            wsgi.application.resolve_request(request("/api/v1/nothing/"))
    assert wsgi._view_at.cache_info().currsize == 0


def test_given_many_paths_when_asked_for_then_few_are_kept():
    for number in range(wsgi.PATHS_KEPT + 10):
        wsgi.application.resolve_request(request(f"/problems/p{number}"))
    assert wsgi._view_at.cache_info().currsize == wsgi.PATHS_KEPT


def test_given_a_host_that_is_not_ours_when_asked_after_one_that_is_then_refused_each_time(
    settings,
):
    settings.ALLOWED_HOSTS = ["api.example.com"]
    for _ in range(2):
        assert request(HTTP_HOST="api.example.com:8000").get_host() == "api.example.com:8000"
        for other in ("evil.example", "api.example.com:x", "api.example.com.evil.example", ""):
            with pytest.raises(DisallowedHost):
                request(HTTP_HOST=other).get_host()
    assert wsgi.Request._allowed_hosts == {"api.example.com:8000"}


def test_given_many_names_of_ours_when_asked_then_few_are_kept(settings):
    settings.ALLOWED_HOSTS = [".example.com"]
    for number in range(wsgi.HOSTS_KEPT + 10):
        assert request(HTTP_HOST=f"h{number}.example.com").get_host() == f"h{number}.example.com"
    assert len(wsgi.Request._allowed_hosts) == wsgi.HOSTS_KEPT
