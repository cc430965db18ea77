"""Which keys name a secret."""

import re
from collections.abc import Iterable
from functools import lru_cache

__all__ = ("MASK", "SECRETS", "Secrets")

MASK = "***"
"""Stands in place of a secret."""

SECRETS = (
    "access_key", "access_keys", "api_key", "api_keys", "auth", "authorization", "connection_string", "cookie", "cookies",
    "credential", "credentials", "csrf", "jwt", "passphrase", "passwd", "password", "passwords", "private_key", "private_keys",
    "pwd", "secret", "secret_key", "secrets", "session", "session_id", "session_key", "signing_key", "token",
)  # fmt: skip
"""The names that are secret unless somebody says otherwise."""

_LONGEST_REMEMBERED = 64
_LOOKED_AT = 1000  # characters at either end: nobody names a key like that, but somebody may log what a stranger has sent
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SEPARATORS = re.compile(r"[\W_]+")


class Secrets:
    """Knows secrets by the names of their keys, in whatever case and with whatever separators.

    A key is secret if it ends with one of the names, or has it among its words; `tokens` and `tokenizer` are no `token`.

    Args:
        names: the names; none for no secrets.

    >>> secrets = Secrets(SECRETS)
    >>> [key for key in ("X-Api-Key", "dbPassword", "password_hash", "accesstoken", "max_tokens") if secrets.has(key)]
    ['X-Api-Key', 'dbPassword', 'password_hash', 'accesstoken']
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset("".join(_words(name)) for name in names) - {""}
        self._ends = tuple(self._names)
        self._remembered = lru_cache(4096)(self._has)

    def has(self, key: str) -> bool:
        """Whether the value of such a key is a secret."""
        if len(key) <= _LONGEST_REMEMBERED:
            return self._remembered(key)
        return self._has(key if len(key) <= 2 * _LOOKED_AT else f"{key[:_LOOKED_AT]} {key[-_LOOKED_AT:]}")

    def _has(self, key: str) -> bool:
        words = _words(key)
        return "".join(words).endswith(self._ends) or any(
            "".join(words[start:end]) in self._names for start in range(len(words)) for end in range(start + 1, start + 4)
        )


def _words(key: str) -> list[str]:
    return [word for word in _SEPARATORS.split(_HUMP.sub("_", key).casefold()) if word]
