"""No URL and no answer of a name server leads us into our own network."""

import socket
import ssl
import subprocess
import time

import pytest

from fintech_core.tests.webhooks.receiver import (
    answering,
    drip_feeding,
    receiving,
    slowly,
)
from fintech_core.webhooks import targets, transport
from fintech_core.webhooks.targets import TargetRefused, is_public, parse_target

PRIVATE = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.8.8.8",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "3fff::1",
    "3fff:fff:ffff::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "nonsense",
]
PUBLIC = ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001::1", "3fff:1000::1"]


class TestAddresses:
    @pytest.mark.parametrize("address", PRIVATE)
    def test_given_an_address_that_is_not_public_then_it_is_known(self, address):
        assert not is_public(address)

    @pytest.mark.parametrize("address", PUBLIC)
    def test_given_a_public_address_then_it_is_known(self, address):
        assert is_public(address)


class TestURLs:
    @pytest.mark.parametrize(
        "url",
        [
            "",
            "example.com",
            "//example.com/",
            "http://example.com/",
            "ftp://example.com/",
            "file:///etc/passwd",
            "gopher://example.com/",
            "https://",
            "https:///path",
            "https://user@example.com/",
            "https://user:password@example.com/",
            "https://@example.com/",
            "https://example.com:0/",
            "https://example.com:99999/",
            "https://example.com:x/",
            "https://example.com/#fragment",
            "https://exa mple.com/",
            "https://example.com/\r\nX: y",
            "https://example.com\\@127.0.0.1/",
            "https://ex%61mple.com/",
            "https://bücher.example/",
            "https://[::1/",
            "https://example.com/" + "a" * 2048,
        ],
    )
    def test_given_a_url_that_we_do_not_send_to_then_refused(self, url):
        with pytest.raises(TargetRefused):
            parse_target(url)

    def test_given_a_good_url_then_it_is_taken_apart(self):
        target = parse_target("https://Shop.Example.com:8443/hooks?token=a%20b")
        assert (target.host, target.port) == ("shop.example.com", 8443)
        assert target.path == "/hooks?token=a%20b"
        assert parse_target("https://[2606:4700::1111]").port == 443

    def test_given_private_targets_are_allowed_then_http_is_too(self, settings):
        settings.WEBHOOK_ALLOW_PRIVATE_TARGETS = True
        assert parse_target("http://127.0.0.1:9000/x").port == 9000


def resolving_to(monkeypatch, *answers):
    """A name server that gives these answers, one after another, and then the last for ever."""
    left = list(answers)

    def resolve(host, port, *_, **__):
        found = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in found]

    monkeypatch.setattr(targets.socket, "getaddrinfo", resolve)


class TestNames:
    @pytest.mark.parametrize(
        "url",
        [
            "https://localhost/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://169.254.169.254/latest/meta-data",
        ],
    )
    def test_given_any_spelling_of_this_machine_when_sending_then_refused(self, url):
        result = transport.post(url, body=b"{}", headers={})
        assert result.status is None
        assert "not public" in result.error

    def test_given_one_private_address_among_public_ones_then_refused(self, monkeypatch):
        resolving_to(monkeypatch, ["8.8.8.8", "10.0.0.1"])
        with pytest.raises(TargetRefused, match="not public"):
            targets.addresses_of(parse_target("https://example.com/"))

    def test_given_a_name_that_is_rebound_when_sending_then_nothing_arrives(self, monkeypatch):
        """Public when it is registered, our own machine when it is sent to."""
        with receiving() as receiver:
            resolving_to(monkeypatch, ["93.184.216.34"], ["127.0.0.1"])
            url = receiver.url(host="rebound.example", scheme="https")
            assert targets.addresses_of(parse_target(url)) == ["93.184.216.34"]
            result = transport.post(url, body=b"{}", headers={})
            assert (result.status, result.error) == (
                None,
                "The host has an address that is not public.",
            )
            assert receiver.received == []

    def test_given_a_name_is_resolved_once_then_that_address_is_connected_to(
        self, monkeypatch, settings
    ):
        """What was judged is what is connected to: a second answer of the name server counts for
        nothing."""
        settings.WEBHOOK_ALLOW_PRIVATE_TARGETS = True
        with receiving() as receiver:
            resolving_to(monkeypatch, ["127.0.0.1"], ["203.0.113.7"])
            connected = []
            connect = transport._open
            monkeypatch.setattr(
                transport,
                "_open",
                lambda *place: connected.append(place[:2]) or connect(*place),
            )
            url = receiver.url(host="once.example")
            assert transport.post(url, body=b"{}", headers={}).status == 200
            assert connected == [("127.0.0.1", receiver.port)]
            assert receiver.received[0][0]["host"] == f"once.example:{receiver.port}"

    def test_given_a_socket_that_ends_up_elsewhere_then_it_is_closed_unused(self, monkeypatch):
        """Should the system connect to another address than it was told, that is seen as well."""
        with receiving() as receiver:
            resolving_to(monkeypatch, ["93.184.216.34"])
            connect = transport._open
            monkeypatch.setattr(
                transport,
                "_open",
                lambda _address, _port, seconds: connect("127.0.0.1", receiver.port, seconds),
            )
            result = transport.post("https://example.com/", body=b"{}", headers={})
            assert "not public" in result.error
            assert receiver.received == []

    def test_given_a_name_server_that_hangs_then_not_for_long(self, monkeypatch):
        monkeypatch.setattr(targets.socket, "getaddrinfo", lambda *_, **__: time.sleep(2))
        started = time.monotonic()
        with pytest.raises(TargetRefused, match="cannot be resolved"):
            targets.addresses_of(parse_target("https://example.com/"), seconds=0.2)
        assert time.monotonic() - started < 1

    def test_given_a_proxy_in_the_environment_then_it_is_not_asked(self, monkeypatch, settings):
        settings.WEBHOOK_ALLOW_PRIVATE_TARGETS = True
        with receiving() as proxy, receiving() as receiver:
            for name in ("http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy.url(""))
            assert transport.post(receiver.url(), body=b"{}", headers={}).status == 200
            assert (len(proxy.received), len(receiver.received)) == (0, 1)


@pytest.fixture
def private_targets(settings):
    settings.WEBHOOK_ALLOW_PRIVATE_TARGETS = True


@pytest.mark.usefixtures("private_targets")
class TestHostileAnswers:
    def test_given_a_redirect_then_it_is_not_followed(self):
        with receiving() as receiver, receiving() as other:
            receiver.answer = answering(307, headers={"Location": other.url()})
            result = transport.post(receiver.url(), body=b"{}", headers={})
            assert (result.status, result.is_success) == (307, False)
            assert "not followed" in result.error
            assert other.received == []

    def test_given_a_huge_answer_then_its_beginning_is_kept(self):
        with receiving() as receiver:
            receiver.answer = answering(200, b"\x00a" * 5_000_000)
            result = transport.post(receiver.url(), body=b"{}", headers={})
            assert result.is_success
            assert result.body == "\ufffda" * 512

    def test_given_a_compressed_answer_then_it_is_not_unpacked(self):
        with receiving() as receiver:
            receiver.answer = answering(200, b"not gzip", {"Content-Encoding": "gzip"})
            assert transport.post(receiver.url(), body=b"{}", headers={}).body == "not gzip"

    @pytest.mark.parametrize("behaviour", [slowly(3), drip_feeding])
    def test_given_a_server_that_takes_its_time_then_there_is_an_end(self, monkeypatch, behaviour):
        monkeypatch.setattr(transport, "TOTAL_SECONDS", 0.5)
        with receiving() as receiver:
            receiver.answer = behaviour
            started = time.monotonic()
            result = transport.post(receiver.url(), body=b"{}", headers={})
            assert time.monotonic() - started < 1.5
            assert (result.status, "no complete answer" in result.error) == (None, True)

    def test_given_a_handshake_that_never_ends_then_there_is_an_end(self, monkeypatch):
        monkeypatch.setattr(transport, "TOTAL_SECONDS", 0.5)
        with socket.create_server(("127.0.0.1", 0)) as server:
            started = time.monotonic()
            url = f"https://127.0.0.1:{server.getsockname()[1]}/"
            result = transport.post(url, body=b"{}", headers={})
            assert time.monotonic() - started < 1.5
            assert result.status is None

    def test_given_nobody_listens_then_it_is_said(self):
        result = transport.post("http://127.0.0.1:9/", body=b"{}", headers={})
        assert result.error == "It does not take connections."

    def test_given_an_answer_that_is_not_http_then_it_is_said(self):
        with receiving() as receiver:
            receiver.answer = lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH\r\n\r\n")
            result = transport.post(receiver.url(), body=b"{}", headers={})
            assert result.error == "The connection broke, or the answer was not HTTP."


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Of hooks.example, by nobody's authority but its own."""
    folder = tmp_path_factory.mktemp("tls")
    key, chain = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=hooks.example",
         "-addext", "subjectAltName=DNS:hooks.example", "-keyout", key, "-out", chain],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return chain, key


@pytest.fixture
def served(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    names = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    with receiving(context) as receiver:
        yield receiver, names


@pytest.mark.usefixtures("private_targets")
class TestTLS:
    def post(self, monkeypatch, receiver, host):
        resolving_to(monkeypatch, ["127.0.0.1"])
        return transport.post(receiver.url(host=host, scheme="https"), body=b"{}", headers={})

    def test_given_a_trusted_certificate_when_sending_then_it_arrives_under_its_name(
        self, monkeypatch, served, certificate
    ):
        receiver, names = served
        trusting = ssl.create_default_context(cafile=certificate[0])
        monkeypatch.setattr(transport, "tls_context", lambda: trusting)
        assert self.post(monkeypatch, receiver, "hooks.example").status == 200
        assert names == ["hooks.example"]

    def test_given_another_name_when_sending_then_refused(self, monkeypatch, served, certificate):
        receiver, _ = served
        trusting = ssl.create_default_context(cafile=certificate[0])
        monkeypatch.setattr(transport, "tls_context", lambda: trusting)
        result = self.post(monkeypatch, receiver, "other.example")
        assert result.error == "Its certificate is not valid for this host."
        assert receiver.received == []

    def test_given_an_unknown_authority_when_sending_then_refused(self, monkeypatch, served):
        receiver, _ = served
        result = self.post(monkeypatch, receiver, "hooks.example")
        assert result.error == "Its certificate is not valid for this host."
        assert receiver.received == []
