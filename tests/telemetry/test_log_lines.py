"""Any value as a line: one line, JSON, with the fields of its preset, of moderate size, and without a secret."""

import datetime as dt
import decimal
import enum
import json
import logging
import sys
import unicodedata
import uuid
from collections import UserDict, deque, namedtuple
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_perfopt.telemetry.structured_logs.collecting import collect
from otel_perfopt.telemetry.structured_logs.console import to_text
from otel_perfopt.telemetry.structured_logs.masking import MASK, SECRETS, Secrets
from otel_perfopt.telemetry.structured_logs.plain import MAX_FIELDS, MORE, Plain, clean, shorten
from otel_perfopt.telemetry.structured_logs.presets import LINES, to_json
from otel_perfopt.telemetry.structured_logs.record import Failure, Place, Record, Service

HIDDEN = "correct horse battery staple"
LIMIT = 256
REQUIRED = {
    "json": {"timestamp", "severity_text", "severity_number", "body", "otel.scope.name", "service.name", "trace_id", "span_id"},
    "ecs": {"@timestamp", "log.level", "message", "ecs.version", "log.logger", "service.name", "trace.id", "span.id"},
    "datadog": {"timestamp", "status", "message", "logger.name", "dd.service", "dd.trace_id", "dd.span_id", "trace_id"},
    "gcp": {"severity", "message", "time", "logging.googleapis.com/trace", "logging.googleapis.com/spanId", "serviceContext"},
}  # fmt: skip
SERVICE = Service("shop", "1.2", "production", "my-project")


class Refuses:
    """Whatever is asked of it, it raises."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __repr__(self) -> str:
        raise self._error


class Liar:
    """Its class is a matter of taste."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise ValueError("none of your business")


class Endless(Mapping[str, int]):
    """A mapping that never comes to an end."""

    def __getitem__(self, key: str) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        number = 0
        while True:
            number += 1
            yield f"key{number}"

    def __len__(self) -> int:
        return sys.maxsize


class Colour(enum.IntEnum):
    RED = 1


Point = namedtuple("Point", "x password")  # noqa: PYI024


@dataclass
class Login:
    user: str
    password: str
    cached: int = field(default=0, repr=False)


def plain(limit: int = LIMIT, secrets: tuple[str, ...] = SECRETS) -> Plain:
    return Plain(Secrets(secrets).has, limit)


texts = st.one_of(
    st.text(), st.text(st.characters(categories=["Cs", "Cc", "Zl", "Zp", "So"])), st.text(min_size=300, max_size=900)
)
leaves = st.one_of(
    texts,
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.binary(),
    st.decimals(),
    st.uuids(),
    st.datetimes(),
    st.builds(object),
    st.builds(
        Refuses, st.sampled_from([ValueError("no"), RecursionError(), MemoryError(), BaseException("worse"), GeneratorExit()])
    ),
    st.builds(Liar),
    st.builds(Endless),
    st.just(Colour.RED),
)
keys = st.one_of(
    texts, st.integers(), st.none(), st.binary(), st.tuples(st.integers()), st.sampled_from(["body", "message", "trace_id"])
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner), st.dictionaries(keys, inner), st.tuples(inner, inner), st.frozensets(st.integers()), st.builds(UserDict)
    ),
    max_leaves=40,
)
secret_keys = st.sampled_from(
    ["password", "X-API-Key", "Set_Cookie", "authToken", "PRIVATE KEY", "db.password", b"Authorization"]
)


def hide(value: Any, key: Any, shape: int) -> Any:
    """A secret beside a value, in one of the shapes that people log."""
    secret = [HIDDEN, {"inner": HIDDEN}, [HIDDEN], HIDDEN.encode()][shape % 4]
    return [{key: secret, "beside": value}, [value, {key: secret}], [(key, secret), ("beside", value)]][shape % 3]


@given(
    attributes=st.dictionaries(keys, values, max_size=5),
    message=texts,
    hidden=st.tuples(values, secret_keys, st.integers(0, 11)),
    error=st.one_of(st.none(), texts),
    preset=st.sampled_from(sorted(LINES)),
    ascii_only=st.booleans(),
)
def test_every_line(
    attributes: dict[Any, Any], message: str, hidden: tuple[Any, Any, int], error: str | None, preset: str, ascii_only: bool
) -> None:
    """Whatever is logged is one line of JSON with the fields of the preset, of bounded length, without the secret."""
    source = logging.LogRecord("shop.orders", logging.WARNING, "shop.py", 3, message, None, None)
    if error is not None:
        source.exc_info = (ValueError, ValueError(error), None)
    source.__dict__["hidden"] = hide(*hidden)
    record = collect(source, attributes, plain())
    with_span = Record(
        **{name: getattr(record, name) for name in record.__slots__} | {"trace_id": 7, "span_id": 5, "trace_flags": 1}
    )
    line = to_json(LINES[preset].render(with_span, SERVICE), ascii_only=ascii_only)
    assert line.splitlines() == [line]
    line.encode("ascii" if ascii_only else "utf-8")
    assert not any(unicodedata.category(each) in {"Cc", "Cs", "Zl", "Zp"} for each in line)
    found = json.loads(line, parse_constant=pytest.fail)
    assert found.keys() >= REQUIRED[preset]
    assert HIDDEN not in line
    assert len(line) < 40 * LIMIT + 12 * LIMIT * (len(attributes) + 2)


@given(values)
def test_values_end(value: Any) -> None:
    """No value costs more than its limit, the marks and escapes aside, and all of it is JSON."""
    found = plain().value(value)
    text = json.dumps(found, allow_nan=False)
    assert len(text) < 80 * LIMIT
    assert json.loads(text) == found


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (2**63 - 1, 2**63 - 1),
        (2**63, "9223372036854775808"),
        (True, True),
        (Colour.RED, "1"),
        (b"\xffab", "\\xffab"),
        (bytearray(b"a\0b"), "a\\x00b"),
        ("a\udcffb", "a\\udcffb"),
        ({1: "int", "1": "text", None: 0}, {"1": "int", "1_": "text", "None": 0}),
        ({"a", }, ["a"]),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (decimal.Decimal("1.50"), "1.50"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (PurePosixPath("/a"), "/a"),
        (Point(1, HIDDEN), {"x": 1, "password": MASK}),
        (Login("bob", HIDDEN), {"user": "bob", "password": MASK}),
        (Refuses(ValueError("no")), "(Refuses that cannot be shown: ValueError)"),
        (Refuses(BaseException("worse")), "(Refuses that cannot be shown: BaseException)"),
        (10**5000, "(int that cannot be shown: ValueError)"),
        ([("cookie", "a=b"), (b"Authorization", b"Basic x"), ("Accept", "*/*")],
         [["cookie", MASK], ["Authorization", MASK], ["Accept", "*/*"]]),
        (deque([{"password": HIDDEN}, 1]), [{"password": MASK}, 1]),
        ({"a": {"password": HIDDEN}}.values(), [{"password": MASK}]),
        ({"password": None}, {"password": None}),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_values(value: object, expected: object) -> None:
    """What becomes of values that JSON does not have."""
    found = plain().value(value)
    assert found == expected
    assert type(found) is type(expected)


def test_interruptions_pass() -> None:
    """Ctrl-C is nothing that a value says."""
    with pytest.raises(KeyboardInterrupt):
        plain().value([Refuses(KeyboardInterrupt())])


def test_long_texts_lose_their_middle() -> None:
    """The beginning and the end say most; the length stands between them."""
    found = plain(64).value("a" * 10_000 + "end")
    assert found.startswith("aaaa")
    assert found.endswith("end")
    assert "…[10,003 characters]…" in found
    assert len(found) < 100
    assert shorten("short", 64) == "short"


def test_long_containers_end() -> None:
    """They say how much more there was."""
    assert plain(64).value(list(range(10_000)))[-1] == "… 9,993 more"
    found = plain(64).value(dict.fromkeys(map(str, range(1000)), 0))
    assert found[MORE] == f"{1000 - (len(found) - 1)} more"
    assert plain(64).fields(dict.fromkeys(range(MAX_FIELDS + 7), 0))[MORE] == "7 more"
    assert plain(64).fields({"big": list(range(10_000)), "small": 7})["small"] == 7


def test_cycles_and_depth() -> None:
    """A container within itself ends after some levels."""
    cycle: list[Any] = []
    cycle += [cycle, cycle]
    tangle: dict[str, Any] = {}
    tangle.update(a=tangle, b=[tangle])
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (cycle, tangle, deep):
        assert MORE in json.dumps(plain(8192).value(value), ensure_ascii=False)
    while deep:  # else its deallocation is deep, too
        deep = deep.pop()


@pytest.mark.parametrize(
    "key",
    ["password", "PASSWORD", "user_password", "userPassword", "userpassword", "password_hash", "pass-word", "X-Api-Key",
     "apikey", "API_KEY", "AWS_SECRET_ACCESS_KEY", "accessToken", "token", "refresh.token", "Authorization", "Cookie",
     "proxy-authorization", "set-cookie", "cookies", "session", "sessionid", "session_id", "private key", "ssh_private_key",
     "client_secret", "pwd", "jwt", "credentials", "PASSPHRASE", "csrf_token",
     "api_keys", "DBPasswordHash", "APITokenValue", "http.request.header.authorization", "x" * 100 + "_token",
     "password_" + "x" * 10**6, "x " * 10**6 + "token"],
    ids=lambda key: key[:40],
)  # fmt: skip
def test_secret_keys(key: str) -> None:
    """They are known in any case, with any separators, with words before and behind."""
    assert Secrets(SECRETS).has(key)


@pytest.mark.parametrize(
    "key",
    ["user", "tokens", "max_tokens", "tokenizer", "key", "cache_key", "author", "path", "passed", "compass", "secretary", ""],
)
def test_other_keys(key: str) -> None:
    """Words that only look alike are no secrets."""
    assert not Secrets(SECRETS).has(key)


def test_other_names_of_secrets() -> None:
    """Names can be added, in any language, or be none."""
    assert Secrets(["Contraseña", "tax id"]).has("USER_CONTRASEÑA")
    assert Secrets(["Contraseña", "tax id"]).has("taxId")
    assert not Secrets([]).has("password")
    assert plain(secrets=()).value({"password": "x"}) == {"password": "x"}


RECORD = Record(
    0.5,
    logging.ERROR,
    "ERROR",
    "shop.orders",
    "order failed",
    {"order": 7, "cart": {"a.b": [1]}},
    Failure("ValueError", "no", "Traceback\nValueError: no"),
    Place("/app/shop.py", 12, "pay"),
    0x0AF7651916CD43DD8448EB211C80319C,
    0x00F067AA0BA902B7,
    1,
)
EXPECTED: dict[str, dict[str, Any]] = {
    "json": {
        "timestamp": "1970-01-01T00:00:00.500000Z",
        "severity_text": "ERROR",
        "severity_number": 17,
        "body": "order failed",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": "00f067aa0ba902b7",
        "trace_flags": "01",
        "otel.scope.name": "shop.orders",
        "service.name": "shop",
        "service.version": "1.2",
        "deployment.environment.name": "production",
        "code.file.path": "/app/shop.py",
        "code.line.number": 12,
        "code.function.name": "pay",
        "exception.type": "ValueError",
        "exception.message": "no",
        "exception.stacktrace": "Traceback\nValueError: no",
        "order": 7,
        "cart": {"a.b": [1]},
    },
    "ecs": {
        "@timestamp": "1970-01-01T00:00:00.500000Z",
        "log.level": "error",
        "message": "order failed",
        "ecs.version": "8.11.0",
        "trace.id": "0af7651916cd43dd8448eb211c80319c",
        "span.id": "00f067aa0ba902b7",
        "log.logger": "shop.orders",
        "service.name": "shop",
        "service.version": "1.2",
        "service.environment": "production",
        "log.origin.file.name": "/app/shop.py",
        "log.origin.file.line": 12,
        "log.origin.function": "pay",
        "error.type": "ValueError",
        "error.message": "no",
        "error.stack_trace": "Traceback\nValueError: no",
        "labels": {"order": 7, "cart": '{"a.b": [1]}'},
    },
    "datadog": {
        "timestamp": "1970-01-01T00:00:00.500000Z",
        "status": "error",
        "message": "order failed",
        "logger.name": "shop.orders",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": "00f067aa0ba902b7",
        "dd.trace_id": "9532127138774266268",
        "dd.span_id": "67667974448284343",
        "dd.service": "shop",
        "dd.env": "production",
        "dd.version": "1.2",
        "error.kind": "ValueError",
        "error.message": "no",
        "error.stack": "Traceback\nValueError: no",
        "order": 7,
        "cart": {"a.b": [1]},
    },
    "gcp": {
        "severity": "ERROR",
        "message": "order failed",
        "time": "1970-01-01T00:00:00.500000Z",
        "logging.googleapis.com/trace": "projects/my-project/traces/0af7651916cd43dd8448eb211c80319c",
        "logging.googleapis.com/spanId": "00f067aa0ba902b7",
        "logging.googleapis.com/trace_sampled": True,
        "logging.googleapis.com/sourceLocation": {"file": "/app/shop.py", "line": "12", "function": "pay"},
        "logger": "shop.orders",
        "serviceContext": {"service": "shop", "version": "1.2"},
        "environment": "production",
        "exception": "ValueError",
        "stack_trace": "Traceback\nValueError: no",
        "order": 7,
        "cart": {"a.b": [1]},
    },
}


@pytest.mark.parametrize("preset", EXPECTED)
def test_presets(preset: str) -> None:
    """All fields of each, in their order."""
    found = LINES[preset].render(RECORD, SERVICE)
    assert found == EXPECTED[preset]
    assert list(found) == list(EXPECTED[preset])


def test_without_a_span_and_a_service() -> None:
    """What is not known is left out."""
    for preset in LINES.values():
        found = preset.render(Record(0.0, 20, "INFO", "a", "b"), Service())
        assert None not in found.values()
        assert not any("trace" in key or "span" in key or "service" in key.lower() for key in found)
    assert "logging.googleapis.com/trace" in LINES["gcp"].render(RECORD, Service())


@pytest.mark.parametrize("preset", ["json", "datadog", "gcp"])
def test_keys_that_are_taken(preset: str) -> None:
    """The fields of the preset are those of the preset; the application's get an underscore."""
    row = LINES[preset]
    own = {key: f"mine {key}" for name in row.fields for key in (name, f"{name}_")}
    found = row.render(Record(**{name: getattr(RECORD, name) for name in RECORD.__slots__} | {"attributes": own}), SERVICE)
    assert found.items() >= {key: value for key, value in EXPECTED[preset].items() if key not in {"order", "cart"}}.items()
    assert set(own.values()) <= {value for value in found.values() if isinstance(value, str)}


def test_first_parts_are_taken() -> None:
    """A text where others have an object would have Elasticsearch and its like refuse the record."""
    record = Record(0.0, 20, "INFO", "a", "b", {"service": "x", "exception": "y", "host": "z"})
    assert {"service_", "exception_", "host"} <= LINES["json"].render(record, SERVICE).keys()
    assert {"service_", "host_"} <= LINES["datadog"].render(record, SERVICE).keys()


@given(texts, st.dictionaries(texts, values, max_size=3), st.booleans())
def test_the_console(message: str, attributes: dict[str, Any], colours: bool) -> None:
    """One line without a traceback, and no character that moves the terminal but our own colours."""
    made = plain()
    text = to_text(Record(0.0, 30, "WARNING", "shop", made.text(message), made.fields(attributes)), colours=colours)
    assert text.splitlines() == [text]
    for colour in ("\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[33m"):
        text = text.replace(colour, "") if colours else text
    assert text.isprintable()


def test_the_console_with_a_traceback() -> None:
    """It follows, each line with a bar."""
    first, *rest = to_text(RECORD, colours=False).splitlines()
    assert first.endswith(
        ' ERROR    shop.orders: order failed order=7 cart={"a.b": [1]} trace_id=0af7651916cd43dd8448eb211c80319c'
    )
    assert rest == ["  | Traceback", "  | ValueError: no"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: logging.LogRecord("a", 20, "f", 1, "%d orders", ("many",), None),
        lambda: logging.LogRecord("a", 20, "f", 1, "%s", (Refuses(ValueError()),), None),
        lambda: logging.LogRecord("a", 20, "f", 1, "%s %s", ("one",), None),
        lambda: logging.LogRecord("a", 20, "f", 1, Refuses(BaseException()), None, None),
        lambda: logging.makeLogRecord({"levelno": 20, "msg": "x", "exc_info": (None, None, None)}),
        lambda: logging.makeLogRecord({"levelno": 20, "msg": "x", "exc_info": "nonsense", "levelname": 7, "name": None}),
        lambda: logging.makeLogRecord(
            {"levelno": 20, "msg": "x", "exc_info": (ValueError, ValueError(Refuses(ValueError())), None)}
        ),
    ],
)
def test_broken_records(make: Callable[[], logging.LogRecord]) -> None:
    """Arguments that do not fit, texts that raise, and things where others should be are logged as well as they can be."""
    record = collect(make(), {}, plain())
    assert isinstance(record.message, str)
    json.loads(to_json(LINES["json"].render(record, SERVICE), ascii_only=True))


@pytest.mark.parametrize("ascii_only", [False, True])
def test_control_characters(ascii_only: bool) -> None:
    """All of them are escaped, those that JSON lets stand included."""
    controls = "".join(map(chr, (*range(1, 32), *range(0x7F, 0xA0), 0x2028, 0x2029)))
    line = to_json({"body": controls}, ascii_only=ascii_only)
    assert line.isprintable()
    assert json.loads(line) == {"body": controls}


def test_clean() -> None:
    """Only what no text may have is changed."""
    assert clean("tab\tΩ\u2028") == "tab\tΩ\u2028"
    assert clean("\ud83d\ude00") == "\\ud83d\\ude00"
