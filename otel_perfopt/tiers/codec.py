"""The bytes of a value in a tier: the value, which version of which type it is, and a seal.

1 byte      the version of this layout
1 byte      flags: compressed, pickled, signed
4 bytes     digest of `version`
4 bytes     digest of the name of `value_type`
any         the value, as msgpack or as a pickle
4 or 32     a CRC32, or an HMAC-SHA256, of everything before
"""

import math
import pickle
import zlib
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Generic, cast, overload

from typing_extensions import TypeVar

from otel_perfopt.errors import ConfigurationError, Undecodable, Unencodable
from otel_perfopt.tiers.errors import type_name
from otel_perfopt.tiers.packing import pack, unpack
from otel_perfopt.tiers.seals import seal_for
from otel_perfopt.tiers.value_types import ValueType

__all__ = ("MAX_SIZE", "Codec")

V = TypeVar("V", default=Any)

MAX_SIZE = 256 * 1024 * 1024
"""The most bytes of one value before compression; neither side makes more, whatever the data says."""

_LAYOUT = 1
_COMPRESSED, _PICKLED, _SIGNED, _UNSIGNED = 1, 2, 4, 0
_UNSIGNED_FLAGS = (_UNSIGNED, _COMPRESSED)
_SIGNED_FLAGS = (_SIGNED, _SIGNED | _COMPRESSED, _SIGNED | _PICKLED, _SIGNED | _PICKLED | _COMPRESSED)
_HEAD_SIZE = 10
_LEVEL = 1  # higher levels of zlib take several times as long for a few per cent


class Codec(Generic[V]):
    """Makes bytes of values and values of bytes; what comes back is equal, and of the same type in every part.

    Args:
        value_type: what the values are, where they are more than the standard library's containers, numbers, texts and times: a
            dataclass, a Struct, an enum, `list[User]`. None: anything of the standard library that is supported.
        version: change it when the same data would mean something else; what was encoded with another one is not decoded.
        compress_above: values that take more bytes are compressed; None for never.
        pickle_key: signs everything, and lets values be pickled that cannot be encoded otherwise. At least 16 random bytes that
            nobody else knows: whoever knows them can run code in this process. Of several keys, the first signs and all are good.

    Raises:
        ConfigurationError: an option cannot work.

    >>> codec = Codec(version=2)
    >>> codec.decode(codec.encode({"sizes": (1, 2), "tags": {"a"}}))
    {'sizes': (1, 2), 'tags': {'a'}}
    """

    @overload
    def __init__(
        self,
        value_type: type[V],
        *,
        version: str | int = "",
        compress_above: int | None = 1024,
        pickle_key: bytes | Sequence[bytes] | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        value_type: Any = None,
        *,
        version: str | int = "",
        compress_above: int | None = 1024,
        pickle_key: bytes | Sequence[bytes] | None = None,
    ) -> None: ...

    def __init__(
        self,
        value_type: Any = None,
        *,
        version: str | int = "",
        compress_above: int | None = 1024,
        pickle_key: bytes | Sequence[bytes] | None = None,
    ) -> None:
        if compress_above is not None and (not isinstance(compress_above, int) or compress_above < 0):
            raise ConfigurationError(f"compress_above={compress_above!r} must be a number of bytes, or None for never")
        if not isinstance(version, str | int):
            raise ConfigurationError(f"version={version!r} must be a text or a number")
        anything = value_type is None or value_type is Any or value_type is object
        self._type = None if anything else ValueType(value_type)
        self._seal = seal_for(pickle_key)
        self._signed = _UNSIGNED if pickle_key is None else _SIGNED
        self._compress_above = math.inf if compress_above is None else compress_above
        self._digests = _digest(str(version)) + _digest(self._type.name if self._type else "")
        self._heads = {
            flags: bytes((_LAYOUT, flags)) + self._digests for flags in (_SIGNED_FLAGS if self._signed else _UNSIGNED_FLAGS)
        }
        self._flags = {head: flags for flags, head in self._heads.items()}

    def encode(self, value: V) -> bytes:
        """Return the bytes of `value`.

        Raises:
            Unencodable: some part of it would not come back as it is; the message says which, and what to do.
        """
        flags, payload = self._serialise(value)
        if len(payload) > MAX_SIZE:
            raise Unencodable(f"value takes {len(payload)} bytes, and the limit is {MAX_SIZE}")
        if len(payload) > self._compress_above:
            compressed = zlib.compress(payload, _LEVEL)
            if len(compressed) < len(payload):
                payload = compressed
                flags |= _COMPRESSED
        return self._seal.close(self._heads[flags] + payload)

    def decode(self, data: bytes) -> V:
        """Return the value of `data`.

        Raises:
            Undecodable: this codec did not make these bytes, or one with other options did; its `reason` says more.
        """
        try:
            flags, payload = self._open(data)
            content = payload if flags & _PICKLED else unpack(payload)
        except Undecodable:
            raise
        except Exception as error:
            raise Undecodable(f"the data is damaged: {error}", reason="damaged") from error
        try:
            if flags & _PICKLED:
                return cast("V", pickle.loads(content))  # noqa: S301 - signed, or `_open` has raised
            return cast("V", content if self._type is None else self._type.from_builtins(content))
        except Exception as error:
            raise Undecodable(f"the data is sound, but the code has no such value any more: {error}", reason="type") from error

    def _serialise(self, value: Any) -> tuple[int, bytes]:
        """Return a value as msgpack or, if need be and if it is allowed, as a pickle, with the flags that say so."""
        if not self._signed or self._type is not None:
            return self._signed, pack(value if self._type is None else self._type.to_builtins(value))
        try:
            return _SIGNED, pack(value)
        except Unencodable:
            pass
        try:
            return _SIGNED | _PICKLED, pickle.dumps(value, protocol=5)
        except Exception as error:
            raise Unencodable(f"value cannot be pickled: {type_name(type(error))}: {error}") from error

    def _open(self, data: bytes) -> tuple[int, memoryview | bytes]:
        """Return the flags and what the value was serialised to; nothing of it is read before the seal is checked."""
        flags = self._flags.get(data[:_HEAD_SIZE])
        if flags is None:
            raise self._foreign(data)
        payload = self._seal.open(memoryview(data))[_HEAD_SIZE:]
        return flags, _decompress(payload) if flags & _COMPRESSED else payload

    def _foreign(self, data: bytes) -> Undecodable:
        """Return what is the matter with data that does not begin as this codec's does.

        Raises:
            Undecodable: the seal is not this codec's either.
        """
        if len(data) < _HEAD_SIZE:
            return Undecodable(f"the data is damaged: it has {len(data)} bytes", reason="damaged")
        layout, flags = data[:2]
        if layout != _LAYOUT or flags > max(_SIGNED_FLAGS):
            self._seal.open(memoryview(data))  # every layout ends with a seal
            return Undecodable(
                f"the data has the layout {layout}.{flags}: another version of this library made it", reason="format"
            )
        if flags not in self._heads:
            have, has = ("no signature", "a") if self._signed else ("a signature", "no")
            return Undecodable(f"the data has {have}, and this codec has {has} key", reason="signature")
        self._seal.open(memoryview(data))
        if data[2:6] != self._digests[:4]:
            return Undecodable("the data has another version=", reason="version")
        return Undecodable("the data has another value_type=", reason="type")


def _decompress(data: memoryview) -> bytes:
    """Return what was compressed; a few bytes may claim to be gigabytes."""
    decompressor = zlib.decompressobj()
    content = decompressor.decompress(data, MAX_SIZE + 1)  # with room left, so that it gets to the end of the stream
    if len(content) > MAX_SIZE or not decompressor.eof or decompressor.unused_data:
        raise Undecodable(f"the data is damaged, or takes more than {MAX_SIZE} bytes", reason="damaged")
    return content


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).digest()
