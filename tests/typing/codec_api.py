"""What type checkers know of codecs. Checked by mypy --strict and pyright (strict), never run."""

from dataclasses import dataclass
from typing import Any, assert_type

from otel_perfopt.errors import DecodeReason, Undecodable
from otel_perfopt.tiers.codec import Codec
from otel_perfopt.tiers.keys import encode_key


@dataclass
class User:
    name: str


assert_type(Codec(), Codec[Any])
assert_type(Codec(version=2, pickle_key=[b"0" * 16]), Codec[Any])
assert_type(Codec(User), Codec[User])
assert_type(Codec(list[User], compress_above=None), Codec[list[User]])

optional: Codec[User | None] = Codec(User | None)
assert_type(optional.decode(b""), User | None)
assert_type(Codec(User).encode(User("a")), bytes)
assert_type(Codec(User).decode(b""), User)
Codec(User).encode("a")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]

assert_type(encode_key(("a", 1)), bytes)
encode_key([1])  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
assert_type(Undecodable("late").reason, DecodeReason)
