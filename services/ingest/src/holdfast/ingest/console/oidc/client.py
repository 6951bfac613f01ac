"""The client of one provider: where to send a browser, and what to make of the answer it comes back with."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, urlsplit

from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from holdfast.ingest.console.oidc.attempt import Attempt, AttemptSeal
from holdfast.ingest.console.oidc.failures import SignInFailed
from holdfast.ingest.console.oidc.fetching import SECONDS, Fetcher
from holdfast.ingest.console.oidc.id_token import Terms, claims_of, key_id_of
from holdfast.ingest.console.oidc.person import Person, Rules, person_of
from holdfast.ingest.console.oidc.provider import Metadata, Provider
from holdfast.runtime.settings import IngestSettings

__all__ = ["CALLBACK", "START", "OidcClient", "client_of"]

START = "/console/oidc/start"
CALLBACK = "/console/oidc/callback"

MAX_CODE_CHARACTERS = 4096

_REFUSALS = {
    "access_denied": "The provider let nobody in: the sign-in was refused or broken off there.",
    "invalid_scope": "The provider does not know one of HOLDFAST_OIDC_SCOPES.",
    "unauthorized_client": "The provider does not allow this client the authorization code flow.",
    "temporarily_unavailable": "The provider is busy. Try again in a moment, or sign in with an API key.",
    "server_error": "The provider had a fault of its own. Try again, or sign in with an API key.",
}


@dataclass(frozen=True, slots=True)
class OidcClient:
    """What ingest is to the provider.

    Attributes:
        secret: ``None`` for a public client.
        origin: scheme, host and port of the console.
    """

    provider: Provider
    fetcher: Fetcher
    rules: Rules
    secret: str | None
    origin: str
    scopes: str
    seal: AttemptSeal

    @property
    def name(self) -> str:
        """The provider's name for people: its host."""
        return urlsplit(self.provider.issuer).netloc

    @property
    def redirect_uri(self) -> str:
        """Where it sends browsers back to; has to be registered there."""
        return self.origin + CALLBACK

    def address(self, attempt: Attempt) -> str:
        """Where to send the browser.

        Raises:
            SignInFailed: the provider is away.
        """
        endpoint = self.provider.metadata(time.monotonic() + SECONDS).authorization_endpoint
        return str(
            prepare_grant_uri(
                endpoint, self.rules.client_id, "code", redirect_uri=self.redirect_uri, scope=self.scopes,
                state=attempt.state, nonce=attempt.nonce,
                code_challenge=create_s256_code_challenge(attempt.verifier), code_challenge_method="S256",
            )
        )  # fmt: skip

    def person(self, attempt: Attempt, answer: Mapping[str, str]) -> Person:
        """Who came back. ``answer``: the query of the address that they came back to.

        Raises:
            SignInFailed: the answer is not to this attempt, is a refusal, or its code gives no token that counts.
        """
        if not attempt.is_answered_by(answer.get("state", "")):
            raise SignInFailed("state", "This sign-in was begun in another window or browser. Begin it again here.")
        deadline = time.monotonic() + SECONDS
        metadata = self.provider.metadata(deadline)
        self._check_issuer(answer.get("iss"), metadata)
        code = self._code(answer)
        token = self._exchange(code, attempt, metadata, deadline).get("id_token")
        key_id = key_id_of(token)
        terms = Terms(self.rules.issuer, self.rules.client_id, attempt.nonce)
        claims = claims_of(str(token), self.provider.keys(key_id, deadline), terms)
        return person_of(claims, self.rules)

    def _check_issuer(self, named: str | None, metadata: Metadata) -> None:
        """Against a mix-up of providers (RFC 9207, section 2.4)."""
        if named == self.rules.issuer or (named is None and not metadata.promises_issuer):
            return
        raise SignInFailed(
            "issuer", "This answer is from another provider than HOLDFAST_OIDC_ISSUER. Begin again here."
        )

    @staticmethod
    def _code(answer: Mapping[str, str]) -> str:
        if error := answer.get("error"):
            known = error if error in _REFUSALS else "another"
            text = _REFUSALS.get(error, "The provider refused the sign-in; its log says why.")
            raise SignInFailed(f"refused_{known}", text, status=403)
        code = answer.get("code", "")
        if not 0 < len(code) <= MAX_CODE_CHARACTERS:
            raise SignInFailed("code", "The provider's answer has no code in it. Begin the sign-in again.")
        return code

    def _exchange(self, code: str, attempt: Attempt, metadata: Metadata, deadline: float) -> dict[str, Any]:
        """The token answer for a code (RFC 6749, section 4.1.3)."""
        form = prepare_token_request(
            "authorization_code", code=code, redirect_uri=self.redirect_uri, code_verifier=attempt.verifier
        )
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        auth = self._auth(metadata)
        endpoint, headers, body = auth.prepare("POST", metadata.token_endpoint, headers, form)
        answer = self.fetcher.post(endpoint, body, headers, deadline=deadline)
        if answer.status != 200:
            raise _not_exchanged(answer.document.get("error"))
        return answer.document

    def _auth(self, metadata: Metadata) -> ClientAuth:
        """Basic, which every provider has to know, unless it says that it only takes the form (RFC 6749, section 2.3.1)."""
        if self.secret is None:
            return ClientAuth(self.rules.client_id, None, "none")
        methods = metadata.auth_methods
        if "client_secret_post" in methods and "client_secret_basic" not in methods:
            return ClientAuth(self.rules.client_id, self.secret, "client_secret_post")
        return ClientAuth(quote_plus(self.rules.client_id), quote_plus(self.secret), "client_secret_basic")


def client_of(settings: IngestSettings) -> OidcClient | None:
    """The client that the settings describe; ``None`` without an issuer. Nothing is asked of the provider yet."""
    if settings.oidc_issuer is None or settings.console_secret is None:
        return None
    fetcher = Fetcher(most_at_once=max(1, settings.ingest_threads // 4))
    rules = Rules(
        settings.oidc_issuer, settings.oidc_client_id or "", settings.oidc_tenant, settings.oidc_tenant_claim,
        settings.oidc_roles_claim, settings.oidc_roles,
    )  # fmt: skip
    return OidcClient(
        Provider(settings.oidc_issuer, fetcher), fetcher, rules, settings.read_oidc_secret(),
        settings.console_url or "", settings.oidc_scopes, AttemptSeal(settings.console_secret.get_secret_value()),
    )  # fmt: skip


def _not_exchanged(error: object) -> SignInFailed:
    if error == "invalid_grant":
        return SignInFailed(
            "code_refused", "The provider does not know this code, or any more. Begin the sign-in again."
        )
    if error == "invalid_client":
        text = "The provider does not accept HOLDFAST_OIDC_CLIENT_ID with its secret. An administrator has to look."
        return SignInFailed("client_refused", text, status=502)
    text = "The provider did not exchange the code; its log says why. Begin again, or sign in with an API key."
    return SignInFailed("not_exchanged", text, status=502)
