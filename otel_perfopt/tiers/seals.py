"""What is put behind bytes to tell later whether they are the same: a checksum, or a signature that only a key can make."""

import hmac
import zlib
from collections.abc import Sequence

from otel_perfopt.errors import ConfigurationError, Undecodable

__all__ = ("Checksum", "Signature", "seal_for")

MIN_KEY = 16
_CHECKSUM_SIZE = 4
_SIGNATURE_SIZE = 32


class Checksum:
    """A CRC32: finds damage, and every change of up to 32 bits in a row; anybody can make one."""

    def close(self, body: bytes) -> bytes:
        """Return `body` with its checksum behind it."""
        return body + zlib.crc32(body).to_bytes(_CHECKSUM_SIZE)

    def open(self, data: memoryview) -> memoryview:
        """Return what is before the checksum.

        Raises:
            Undecodable: the checksum is another.
        """
        body, checksum = data[:-_CHECKSUM_SIZE], data[-_CHECKSUM_SIZE:]
        if zlib.crc32(body) != int.from_bytes(checksum):
            raise Undecodable("the checksum is wrong: the data is damaged", reason="damaged")
        return body


class Signature:
    """An HMAC-SHA256.

    Args:
        keys: signs with the first, and accepts all.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(keys)

    def close(self, body: bytes) -> bytes:
        """Return `body` with its signature behind it."""
        return body + hmac.digest(self._keys[0], body, "sha256")

    def open(self, data: memoryview) -> memoryview:
        """Return what is before the signature.

        Raises:
            Undecodable: none of the keys made this signature.
        """
        body, signature = data[:-_SIGNATURE_SIZE], data[-_SIGNATURE_SIZE:]
        if not any(hmac.compare_digest(hmac.digest(key, body, "sha256"), signature) for key in self._keys):
            raise Undecodable("the signature is wrong: none of the keys made it", reason="signature")
        return body


def seal_for(pickle_key: bytes | Sequence[bytes] | None) -> Checksum | Signature:
    """Return the seal for an option `pickle_key`.

    Raises:
        ConfigurationError: there is no key in it, or one that is too short or not bytes.
    """
    if pickle_key is None:
        return Checksum()
    if isinstance(pickle_key, str):
        raise ConfigurationError("pickle_key must be bytes, not str: keep the output of secrets.token_bytes(32)")
    keys = (pickle_key,) if isinstance(pickle_key, bytes) else tuple(pickle_key)
    if not keys:
        raise ConfigurationError("pickle_key has no keys: give one, or None for no pickles")
    for key in keys:
        # The message never shows a key.
        if not isinstance(key, bytes):
            raise ConfigurationError(f"pickle_key has a key of type {type(key).__name__}: keys are bytes")
        if len(key) < MIN_KEY:
            raise ConfigurationError(
                f"pickle_key has a key of {len(key)} bytes: use at least {MIN_KEY}, such as secrets.token_bytes(32)"
            )
    return Signature(keys)
