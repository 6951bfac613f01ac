"""Sealing bytes with AES-256-GCM (NIST SP 800-38D), by the package ``cryptography`` of the extra ``sealing``.

Sealed bytes are one byte with the version, 1; a random nonce of 12 bytes; and the ciphertext with its tag of 16 bytes. They
open with the same key and the same context only, so that bytes which are put elsewhere do not open there.

Loaded only where keys are given.
"""

import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from holdfast.domain.encryption_keys import KEY_BYTES, key_id

__all__ = ["OVERHEAD_BYTES", "Broken", "Cipher", "KeyRing"]

VERSION = b"\x01"

NONCE_BYTES = 12
"""Random: one key seals fewer than 2 ** 32 times (SP 800-38D, 8.3), which is why data keys are replaced by their age."""

OVERHEAD_BYTES = 1 + NONCE_BYTES + 16


class Broken(Exception):
    """The bytes were changed, belong elsewhere, or were sealed with another key."""


class Cipher:
    """Seals and opens with one key, from any number of threads."""

    __slots__ = ("_aead",)

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def seal(self, content: bytes, context: bytes) -> bytes:
        """The content as sealed bytes, which open with this ``context``."""
        nonce = os.urandom(NONCE_BYTES)
        return VERSION + nonce + self._aead.encrypt(nonce, content, VERSION + context)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """What was sealed.

        Raises:
            Broken: they do not open.
        """
        if sealed[:1] != VERSION or len(sealed) < OVERHEAD_BYTES:
            raise Broken
        nonce, body = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
        try:
            return self._aead.decrypt(nonce, body, VERSION + context)
        except InvalidTag:
            raise Broken from None


class KeyRing:
    """Key-encryption keys, which wrap data keys. The first is the current one."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._ciphers = {key_id(key): Cipher(key) for key in keys}
        self.current_id = key_id(keys[0])

    @property
    def ids(self) -> list[str]:
        """Of all keys."""
        return list(self._ciphers)

    def wrap(self, data_key: bytes, context: bytes) -> bytes:
        """A data key sealed with the current key."""
        return self._ciphers[self.current_id].seal(data_key, context)

    def unwrap(self, wrapped: bytes, kek_id: str, context: bytes) -> bytes:
        """The data key.

        Raises:
            KeyError: this key is not here.
            Broken: it does not open.
        """
        data_key = self._ciphers[kek_id].open(wrapped, context)
        if len(data_key) != KEY_BYTES:
            raise Broken
        return data_key
