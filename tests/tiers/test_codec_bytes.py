"""The bytes of a codec: what is damaged, foreign, old or wrongly signed gives no value, and nothing else happens."""

import contextlib
import pickle
import random
import struct
import tracemalloc
import zlib
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack

from otel_perfopt.errors import ConfigurationError, Undecodable, Unencodable
from otel_perfopt.tiers import codec as codec_module
from otel_perfopt.tiers.codec import Codec
from otel_perfopt.tiers.seals import Checksum

KEY, OTHER_KEY = b"0123456789abcdef", b"fedcba9876543210" * 2
VALUE = {"a": [1, 2.5, None, (b"x", Decimal("1.5"))], "text": "t" * 20}
CODECS: dict[str, Codec[Any]] = {
    "plain": Codec(),
    "compressed": Codec(compress_above=0),
    "signed": Codec(pickle_key=KEY),
    "signed, compressed": Codec(pickle_key=KEY, compress_above=0),
    "typed": Codec(dict[str, Any], version=3),
}


class Thing:
    """Only a pickle can be made of it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return type(other) is Thing and other.number == self.number

    __hash__ = None  # type: ignore[assignment]


WENT_OFF: list[str] = []


def go_off() -> None:
    WENT_OFF.append("boom")


class Bomb:
    """Makes itself known when it is unpickled."""

    def __reduce__(self) -> Any:
        return go_off, ()


def reason(codec: Codec[Any], data: bytes) -> str:
    """Why there is no value."""
    with pytest.raises(Undecodable) as caught:
        codec.decode(data)
    assert caught.value.code == "UNDECODABLE"
    assert isinstance(caught.value, ValueError)
    return caught.value.reason


def forged(payload: bytes, flags: int = 0) -> bytes:
    """What anybody who can write to a file makes: right in all but its meaning."""
    body = Codec().encode(None)[:10]
    body = body[:1] + bytes((flags,)) + body[2:] + payload
    return body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_round_trip(codec: Codec[Any]) -> None:
    """Whatever the options, the value is the same; also from a view of the bytes."""
    data = codec.encode(VALUE)
    assert codec.decode(data) == codec.decode(memoryview(data)) == VALUE  # type: ignore[arg-type]


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_every_changed_byte_is_noticed(codec: Codec[Any]) -> None:
    """At every place, one bit, all bits, and zero: no value, and no other error."""
    data = codec.encode(VALUE)
    for place, byte in enumerate(data):
        for changed in {byte ^ 1, byte ^ 128, byte ^ 255, 0} - {byte}:
            assert reason(codec, data[:place] + bytes((changed,)) + data[place + 1 :]) in {"damaged", "signature"}


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_every_length_is_noticed(codec: Codec[Any]) -> None:
    """What was cut off, and what was added."""
    data = codec.encode(VALUE)
    for size in range(len(data)):
        assert reason(codec, data[:size]) in {"damaged", "signature"}
    assert reason(codec, data + b"\0") in {"damaged", "signature"}
    assert reason(codec, data + data) in {"damaged", "signature"}


@given(st.binary(max_size=300))
def test_noise(data: bytes) -> None:
    """Any bytes, with and without a head and a checksum that are right."""
    for codec in CODECS.values():
        reason(codec, data)
    for flags in range(256):
        if flags:
            reason(Codec(), forged(data, flags))
    with contextlib.suppress(Undecodable):  # it may be a value by chance
        Codec().decode(forged(data))


@pytest.mark.parametrize(
    "payload",
    [
        b"\xdd\xff\xff\xff\xff\x01",  # a list of four thousand million items
        b"\xdf\xff\xff\xff\xff\x01",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 100_000 + b"\x01",
        b"\xc1",
        b"",
        msgpack.encode(msgpack.Ext(99, b"\x90")),  # a code that there is not
        msgpack.encode(msgpack.Ext(2, msgpack.encode([[]]))),  # a set of a list
        msgpack.encode(msgpack.Ext(4, msgpack.encode([1]))),  # a dict with a key and no value
        msgpack.encode(msgpack.Ext(10, msgpack.encode([2**40]))),  # a bytearray of so many bytes
        msgpack.encode(msgpack.Ext(13, msgpack.encode(["1e9999999", 1]))),  # a fraction with so many digits
        msgpack.encode(msgpack.Ext(13, msgpack.encode([1, 0]))),
        msgpack.encode(msgpack.Ext(15, msgpack.encode(["2025-13-01", 0, None]))),
        msgpack.encode(msgpack.Ext(20, msgpack.encode(["../../etc/passwd"]))),
        msgpack.encode(msgpack.Ext(20, msgpack.encode(["Nowhere/Atlantis"]))),
    ],
    ids=lambda payload: payload[:12].hex(),
)
def test_content_that_is_made_up(payload: bytes) -> None:
    """A checksum can be made by anybody: the content may neither take the memory nor raise anything else."""
    assert reason(Codec(), forged(payload)) == "damaged"


def test_a_small_message_cannot_become_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit holds for what is decompressed, whatever it is."""
    monkeypatch.setattr(codec_module, "MAX_SIZE", 1_000_000)
    bomb = forged(zlib.compress(b"\xc6" + struct.pack(">I", 50_000_000) + bytes(50_000_000)), flags=1)
    tracemalloc.start()
    try:
        assert reason(Codec(), bomb) == "damaged"
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_what_could_not_be_read_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit holds on both sides, at the same size."""
    monkeypatch.setattr(codec_module, "MAX_SIZE", 1000)
    for codec in (Codec(compress_above=0), Codec(compress_above=None)):
        assert codec.decode(codec.encode(b"x" * 997)) == b"x" * 997
        with pytest.raises(Unencodable, match="value takes 1001 bytes, and the limit is 1000"):
            codec.encode(b"x" * 998)


@pytest.mark.parametrize("payload", [b"", b"x", zlib.compress(b"\xc0") + b"x", zlib.compress(b"\xc0")[:-1]])
def test_compressed_data_is_whole(payload: bytes) -> None:
    """Neither less nor more than one stream."""
    assert reason(Codec(), forged(payload, flags=1)) == "damaged"


def test_compression() -> None:
    """Above a size, and only where it helps."""
    text, noise = "a" * 2000, random.Random(7).randbytes(2000)
    assert len(Codec().encode(text)) < 100
    assert len(Codec().encode(noise)) == 2000 + 3 + 14
    assert len(Codec(compress_above=None).encode(text)) == 2000 + 3 + 14
    assert len(Codec(compress_above=2003).encode(text)) == 2000 + 3 + 14
    assert len(Codec(compress_above=2002).encode(text)) < 100
    # Every codec reads it, whatever it compresses itself.
    assert Codec(compress_above=None).decode(Codec().encode(text)) == text


def test_another_version_is_a_miss() -> None:
    """Data of other code is not used."""
    data = Codec(version="2025-01").encode(VALUE)
    assert Codec(version="2025-01").decode(data) == VALUE
    assert [reason(Codec(version=version), data) for version in ("", "2025-02", 1)] == ["version"] * 3
    assert Codec(version=1).decode(Codec(version="1").encode(1)) == 1


def test_a_layout_that_is_not_known_yet_is_a_miss() -> None:
    """What a newer version of the library wrote is no damage, if its seal is right."""
    seal, body = Checksum(), Codec().encode(VALUE)[:-4]
    for other in (b"\x02" + body[1:], body[:1] + b"\x08" + body[2:]):
        assert reason(Codec(), seal.close(other)) == "format"
        assert reason(Codec(), other + b"1234") == "damaged"


def test_the_layout_stays() -> None:
    """Data of earlier releases can be read: these bytes never change."""
    data = bytes.fromhex("010010220a3a1271cf2582a161d5019101a162c0abd684c7")
    assert Codec(version=7).encode({"a": (1,), "b": None}) == data
    assert Codec(version=7).decode(data) == {"a": (1,), "b": None}


def test_pickles_need_a_key() -> None:
    """Without one, what only pickle can encode is refused; with one it comes back."""
    with pytest.raises(Unencodable, match="pickle_key="):
        Codec().encode([Thing(1)])
    codec = Codec(pickle_key=KEY)
    assert codec.decode(codec.encode([Thing(1)])) == [Thing(1)]


def test_only_what_needs_it_is_pickled() -> None:
    """With a key, too, everything else is msgpack."""
    assert Codec(pickle_key=KEY).encode(VALUE)[1] == 4
    assert Codec(pickle_key=KEY).encode(Thing(1))[1] == 6


def test_what_cannot_be_pickled_either() -> None:
    """That is an Unencodable as well."""
    cycle: list[Any] = []
    cycle.append(cycle)
    codec = Codec(pickle_key=KEY)
    with pytest.raises(Unencodable, match=r"^value cannot be pickled: .*lambda"):
        codec.encode([lambda: 1])
    back = codec.decode(codec.encode(cycle))
    assert back[0] is back


def test_a_declared_type_is_never_pickled() -> None:
    """What was declared is what comes back."""
    with pytest.raises(Unencodable, match="value_type=int says"):
        Codec(int, pickle_key=KEY).encode(Thing(1))  # type: ignore[arg-type]
    codec = Codec(int, pickle_key=KEY)
    assert codec.decode(codec.encode(1)) == 1


def test_pickles_that_nobody_signed_do_not_run() -> None:
    """Neither as they are, nor in the place of signed ones, nor in the place of msgpack."""
    payload = pickle.dumps(Bomb())
    signed = Codec(pickle_key=OTHER_KEY).encode(Bomb())
    for codec in CODECS.values():
        for data in (payload, forged(payload), forged(payload, 2), forged(payload, 6), forged(zlib.compress(payload), 7), signed):
            assert reason(codec, data) in {"damaged", "format", "signature", "version"}
    assert WENT_OFF == []
    Codec(pickle_key=OTHER_KEY).decode(signed)
    assert WENT_OFF == ["boom"]
    WENT_OFF.clear()


def test_a_wrong_signature() -> None:
    """Of another key, of none, and on a codec without a key."""
    signed, unsigned = Codec(pickle_key=KEY).encode(VALUE), Codec().encode(VALUE)
    assert reason(Codec(pickle_key=OTHER_KEY), signed) == "signature"
    assert reason(Codec(pickle_key=KEY), unsigned) == "signature"
    assert reason(Codec(), signed) == "signature"


def test_the_signature_is_checked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is decompressed, decoded or unpickled, and before the version is told."""

    def never(*args: object) -> Any:
        raise AssertionError("read before the signature was checked")

    for data in (Codec(pickle_key=OTHER_KEY, version=version, compress_above=0).encode([Thing(1)] * 9) for version in ("", "1")):
        with monkeypatch.context() as patched:
            patched.setattr(codec_module, "unpack", never)
            patched.setattr(codec_module, "_decompress", never)
            patched.setattr(pickle, "loads", never)
            assert reason(Codec(pickle_key=KEY), data) == "signature"


def test_keys_are_rotated() -> None:
    """The first signs, all are accepted; what was signed with a key that is gone is a miss."""
    old, both, new = Codec(pickle_key=KEY), Codec(pickle_key=[OTHER_KEY, KEY]), Codec(pickle_key=[OTHER_KEY])
    assert both.decode(old.encode(Thing(1))) == Thing(1)
    assert new.decode(both.encode(Thing(1))) == Thing(1)
    assert reason(old, both.encode(Thing(1))) == reason(new, old.encode(Thing(1))) == "signature"


def test_a_pickle_of_a_class_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is signed and sound, and there is no such value any more."""
    codec = Codec(pickle_key=KEY)
    data = codec.encode(Thing(1))
    monkeypatch.delitem(globals(), "Thing")
    assert reason(codec, data) == "type"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pickle_key": ""}, "pickle_key must be bytes, not str"),
        ({"pickle_key": "0123456789abcdef"}, "pickle_key must be bytes, not str"),
        ({"pickle_key": b""}, "a key of 0 bytes: use at least 16"),
        ({"pickle_key": b"123456789012345"}, "a key of 15 bytes: use at least 16"),
        ({"pickle_key": [KEY, b"short"]}, "a key of 5 bytes"),
        ({"pickle_key": []}, "pickle_key has no keys"),
        ({"pickle_key": [KEY, "0123456789abcdef"]}, "a key of type str: keys are bytes"),
        ({"compress_above": -1}, "compress_above=-1 must be a number of bytes"),
        ({"compress_above": "1k"}, "compress_above='1k' must be"),
        ({"version": None}, "version=None must be a text or a number"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    """The message names the option and the fix, and never shows a key."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        Codec(**options)
    assert "0123456789" not in str(caught.value)


@pytest.mark.parametrize("data", ["text", None, 5, bytearray(b"x" * 20)])
def test_what_is_not_bytes(data: Any) -> None:
    """A tier that returns something else is damaged."""
    assert reason(Codec(), data) == "damaged"
