"""Requests about a tenant itself: who did what, and its API keys."""

from collections.abc import Iterator, Sequence
from urllib.parse import quote

from holdfast.client.answers import read
from holdfast.client.audit import AuditEntry
from holdfast.client.keys import ApiKey, NewApiKey
from holdfast.client.requests import JSON, Requests

__all__ = ["Administration"]


class Administration(Requests):
    """The part of :class:`~holdfast.client.Client` that looks after a tenant's API keys, and reads its audit log.

    Keys take an API key with the scope ``admin``, the audit log one with ``operate``. All methods raise ``ApiProblem`` and
    ``Unreachable``.
    """

    def audit(self, *, limit: int | None = None, **filters: str | None) -> Iterator[AuditEntry]:
        """Entries of the audit log, newest first, at most ``limit``; a page is requested when the iterator reaches it.

        ``filters``: ``action, actor`` (a key's id or name), ``event_id, replay_id, since, until``.
        """
        return self._pages("/v1/audit", filters, AuditEntry.read, limit)

    def keys(self, *, limit: int | None = None) -> Iterator[ApiKey]:
        """The tenant's API keys, the newest first; revoked and expired ones too."""
        return self._pages("/v1/keys", {}, ApiKey.read, limit)

    def create_key(
        self, name: str, *, scopes: Sequence[str] | None = None, expires_in_seconds: int | None = None
    ) -> NewApiKey:
        """Create an API key. The answer has the whole of it, this once.

        Args:
            scopes: the API's default, ``events:write`` and ``events:read``, if ``None``.
            expires_in_seconds: never, if ``None``.

        Raises:
            ApiProblem: also 409 ``key_made_before``: an answer was lost on the way, and the secret with it. Rotate that key.
        """
        fields = {"name": name, "scopes": scopes, "expires_in_seconds": expires_in_seconds}
        body = {name: value for name, value in fields.items() if value is not None}
        return read(self._act("/v1/keys", body), NewApiKey.read)

    def rotate_key(self, key_id: str, *, overlap_seconds: int | None = None) -> NewApiKey:
        """Make a key with the same name, scopes and life; the old one ends after the overlap, a day if ``None``.

        Raises:
            ApiProblem: also 409 ``key_made_before``, as for :meth:`create_key`.
        """
        body = {} if overlap_seconds is None else {"overlap_seconds": overlap_seconds}
        return read(self._act(f"{_key(key_id)}/rotate", body), NewApiKey.read)

    def revoke_key(self, key_id: str, *, force: bool = False) -> ApiKey:
        """Revoke a key. The last one with the scope ``admin`` only with ``force``. Revoking again is safe."""
        answer = self._request("POST", f"{_key(key_id)}/revoke", body={"force": force}, content_type=JSON)
        return read(answer, ApiKey.read)


def _key(key_id: str) -> str:
    return f"/v1/keys/{quote(key_id, safe='')}"
