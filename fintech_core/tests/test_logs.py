"""Each log line is JSON with the request's id, and without anybody's secrets."""

import json
import logging
import logging.config
import re
import sys

import pytest
import structlog
from django.test import RequestFactory
from hypothesis import given
from hypothesis import strategies as st

from fintech_core.logs import SharedFileHandler, logging_config, scrub

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJlLXNpZ25hdHVyZQ"


@pytest.fixture
def line(tmp_path):
    """Write one record through the real configuration; return what reached the file."""
    before = {h: h.level for h in logging.getLogger().handlers}
    config = logging_config(str(tmp_path))
    formatter = logging.config.DictConfigurator(config).configure_formatter(
        config["formatters"]["json"]
    )

    def render(message, *args, exc_info=None, **extra):
        record = logging.getLogger("x").makeRecord(
            "x", logging.INFO, "f", 1, message, args, exc_info, extra=extra
        )
        return json.loads(formatter.format(record))

    yield render
    assert before == {h: h.level for h in logging.getLogger().handlers}


def test_given_a_request_when_logging_then_the_line_has_its_id(line):
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        written = line("hello %s", "world", status=200)
    assert written["event"] == "hello world"
    assert written["request_id"] == "r-1"
    assert written["status"] == 200
    assert written["level"] == "info"
    assert written["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    "secret",
    [
        TOKEN,
        f"Bearer {TOKEN}",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "sk_test_4eC39HqLyjWDarjtT1zdp7dc",
        "alice@example.com",
        "+4915112345678",
        "DE89370400440532013000",
        "postgres://app:hunter2secret@db/x",
    ],
)
def test_given_a_secret_in_the_text_when_logging_then_it_is_gone(line, secret):
    hidden = "hunter2secret" if "hunter2" in secret else secret
    assert hidden not in json.dumps(line(f"before {secret} after"))
    assert hidden not in scrub(f"x {secret} y")


@pytest.mark.parametrize(
    "name", ["password", "new_password", "access_token", "refresh_token", "authorization",
             "document_number", "date_of_birth", "phone_number", "iban", "client_secret"]
)  # fmt: skip
def test_given_a_field_with_a_telling_name_when_logging_then_its_value_is_gone(line, name):
    assert line("event", **{name: "value-to-hide"})[name] == "[removed]"


class Unsayable:
    def __str__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("message", "args", "more"),
    [
        ("pay %s %s", (TOKEN,), {}),
        ("pay %d", (TOKEN,), {}),
        ("pay %s", (Unsayable(),), {}),
        (Unsayable(), (), {}),
        ("pay", (), {"whom": Unsayable()}),
        ("pay", (), {"whom": {("a", "b"): TOKEN}}),
    ],
)
def test_given_a_record_that_cannot_be_rendered_when_logging_then_it_is_said_and_nothing_shown(
    line, message, args, more
):
    written = line(message, *args, **more)
    assert written["not_rendered"] in {"TypeError", "RuntimeError", "ValueError"}
    assert written["logger"] == "x"
    assert TOKEN not in json.dumps(written)


def test_given_a_bound_name_of_ours_when_logging_then_the_message_counts(line):
    with structlog.contextvars.bound_contextvars(event="another"):
        assert line("hello")["event"] == "hello"


def test_given_djangos_own_record_of_a_request_when_logging_then_no_query_string(line):
    request = RequestFactory().get("/api/v1/users/?search=Brixton+Road")
    assert "Brixton" not in json.dumps(line("Not Found: %s", request.path, request=request))


def test_given_a_long_local_part_when_scrubbing_then_the_address_is_gone_all_the_same():
    assert "example.com" not in scrub(f"x {'a' * 64}@mail.example.com y")


def test_given_an_exception_when_logging_then_no_local_variable_is_shown(line):
    def fails():
        local_secret = "correct horse"
        raise ValueError(f"key (email)=(bob@example.com), {len(local_secret)}")

    try:
        fails()
    except ValueError:
        written = json.dumps(line("failed", exc_info=sys.exc_info()))
    assert "ValueError" in written
    assert "correct horse" not in written
    assert "bob@example.com" not in written


def test_given_a_folder_when_configuring_then_a_rotating_file_is_there(tmp_path):
    handlers = logging_config(str(tmp_path / "logs"))["handlers"]
    assert handlers["file"]["maxBytes"] > 0
    assert (tmp_path / "logs").is_dir()
    assert list(logging_config("")["handlers"]) == ["stdout"]


@pytest.fixture
def files(tmp_path):
    """Handlers as processes have them, all with one file of 1,000 bytes."""
    path, made = tmp_path / "app.log", []

    def another():
        made.append(SharedFileHandler(str(path), maxBytes=1_000, backupCount=50))
        return made[-1]

    another.lines = lambda: [
        line for file in tmp_path.glob("app.log*") for line in file.read_text().splitlines()
    ]
    yield another
    for handler in made:
        handler.close()


def _write(handler, text):
    handler.handle(logging.LogRecord("x", logging.INFO, "f", 1, text, (), None))


def test_given_a_full_file_when_another_process_rotates_it_then_no_line_is_lost(files, tmp_path):
    # Given
    mine, other = files(), files()
    written = [f"{number} {'x' * 40}" for number in range(200)]
    # When
    for number, line in enumerate(written):
        handler = (mine, other)[number % 2]
        if number % 10 == 0:
            handler._looks_again_at = 0  # a second later
        _write(handler, line)
    # Then
    assert len(list(tmp_path.glob("app.log.*"))) > 1
    assert sorted(files.lines()) == sorted(written)


def test_given_a_file_that_was_rotated_when_a_second_has_passed_then_the_new_one_is_written(
    files, tmp_path
):
    handler = files()
    _write(handler, "before")
    (tmp_path / "app.log").rename(tmp_path / "app.log.1")
    _write(handler, "within the second")
    handler._looks_again_at -= handler.LOOK_SECONDS
    _write(handler, "after")
    assert (tmp_path / "app.log.1").read_text() == "before\nwithin the second\n"
    assert (tmp_path / "app.log").read_text() == "after\n"


IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[A-Z0-9]{4}){2,7}[A-Z0-9]{1,4}\b")


@given(
    st.lists(
        st.sampled_from(["GB82WEST12345698765432", "DE89370400440532013000", "A", "é", "_", "7"])
        | st.sampled_from([" ", "-", "GB", "82", "WEST1234", "x", "\n", "٣"])
    ).map("".join)
)
def test_given_any_text_when_scrubbed_then_exactly_its_ibans_are_gone(text):
    assert scrub(text) == IBAN.sub("[iban]", text)
