"""A provider of OpenID Connect: discovery, keys, authorization with PKCE, codes that count once, signed tokens. It misbehaves
on demand.

It shows its user a page with a button in place of a password; who that is says :attr:`OidcProvider.person`.
"""

import base64
import hashlib
import hmac
import html
import json
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

import httpx
from joserfc import jws
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

CLIENT_ID = "holdfast console"
CONSOLE_SECRET = "a secret of the console's tests, long enough"
CLIENT_SECRET = "a secret: of the provider's+client"

KEYS: dict[str, Any] = {"RS256": RSAKey, "PS256": RSAKey, "ES256": ECKey, "EdDSA": OKPKey}


@dataclass
class OidcProvider:
    """What it says, and how it misbehaves.

    Attributes:
        host: how it calls its machine; to a browser ``localhost`` is another site than ``127.0.0.1``.
        person: claims of whoever signs in, beside those that every token has.
        claims: overrides of a token's claims; ``None`` leaves one out.
        header: overrides of a token's header.
        metadata: overrides of what it says of itself.
        authorization: overrides of the parameters that it sends a browser back with; ``None`` leaves one out.
        answers: path → what is done there in place of answering: ``slow``, ``trickle``, ``huge``, ``loop``, ``status``,
            ``text``, ``deep``.
        is_public: whether its client has no secret.
        seen: paths that were asked for.
    """

    port: int = 0
    host: str = "127.0.0.1"
    person: dict[str, Any] = field(
        default_factory=lambda: {"sub": "ann-1", "email": "ann@example.com", "groups": ["ops"]}
    )
    claims: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    authorization: dict[str, str | None] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    algorithm: str = "RS256"
    is_public: bool = False
    method: str = "client_secret_basic"
    seen: list[str] = field(default_factory=list)
    keys: list[Any] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    is_over: threading.Event = field(default_factory=threading.Event)

    @property
    def issuer(self) -> str:
        return f"http://{self.host}:{self.port}/realms/test"

    def behave(self) -> None:
        """As at the beginning, with the same keys."""
        fresh = OidcProvider(self.port, self.host)
        for name in (
            "person",
            "claims",
            "header",
            "metadata",
            "authorization",
            "answers",
            "is_public",
            "method",
            "seen",
        ):
            setattr(self, name, getattr(fresh, name))
        if self.algorithm != fresh.algorithm:
            self.algorithm = fresh.algorithm
            self.rotate()

    def rotate(self) -> None:
        """Another key, and the old one counts no more."""
        kind = KEYS[self.algorithm]
        size = {RSAKey: 2048, ECKey: "P-256", OKPKey: "Ed25519"}[kind]
        self.keys = [kind.generate_key(size, {"kid": secrets.token_hex(4), "use": "sig"})]

    def describe(self) -> dict[str, Any]:
        told = {
            "issuer": self.issuer, "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token", "jwks_uri": f"{self.issuer}/keys",
            "response_types_supported": ["code"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [self.algorithm],
            "token_endpoint_auth_methods_supported": [self.method],
        }  # fmt: skip
        return told | self.metadata

    def code_for(self, asked: dict[str, str]) -> str:
        """A code, for somebody who agrees to what a browser was sent with."""
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT_ID
        assert "openid" in asked["scope"].split()
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(24)
        self.codes[code] = asked
        return code

    def back(self, asked: dict[str, str]) -> str:
        """Where a browser goes after that."""
        told: dict[str, str | None] = {"code": self.code_for(asked), "state": asked["state"], "iss": self.issuer}
        given = {name: value for name, value in (told | self.authorization).items() if value is not None}
        return f"{asked['redirect_uri']}?{urlencode(given)}"

    def token(self, form: dict[str, str], authorization: str | None) -> tuple[int, dict[str, Any]]:
        """The answer to a code."""
        if not self._is_client(form, authorization):
            return 401, {"error": "invalid_client"}
        asked = self.codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if asked is None or asked["redirect_uri"] != form["redirect_uri"] or asked["code_challenge"] != challenge:
            return 400, {"error": "invalid_grant"}
        return 200, {"access_token": "opaque", "token_type": "Bearer", "id_token": self.id_token(asked["nonce"])}

    def id_token(self, nonce: str) -> str:
        now = int(time.time())
        usual = {"iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": nonce}
        claims = {name: value for name, value in (usual | self.person | self.claims).items() if value is not None}
        header = {"alg": self.algorithm, "kid": self.keys[0].kid} | self.header
        header = {name: value for name, value in header.items() if value is not None}
        return signed(header, json.dumps(claims), self.keys[0])

    def _is_client(self, form: dict[str, str], authorization: str | None) -> bool:
        if self.is_public:
            return authorization is None and form.get("client_id") == CLIENT_ID
        if self.method == "client_secret_post":
            return (form.get("client_id"), form.get("client_secret")) == (CLIENT_ID, CLIENT_SECRET)
        scheme, _, text = (authorization or "").partition(" ")
        name, _, secret = base64.b64decode(text).decode().partition(":")
        return (scheme, unquote_plus(name), unquote_plus(secret)) == ("Basic", CLIENT_ID, CLIENT_SECRET)


def signed(header: dict[str, Any], payload: str, key: Any) -> str:
    """A token, also with what no honest provider would sign with."""
    if header["alg"] == "none":
        parts = [
            base64.urlsafe_b64encode(each.encode()).rstrip(b"=").decode() for each in (json.dumps(header), payload)
        ]
        return ".".join([*parts, ""])
    if header["alg"] == "HS256":
        public = key.as_pem(private=False)
        head, body = (base64.urlsafe_b64encode(each.encode()).rstrip(b"=") for each in (json.dumps(header), payload))
        mac = hmac.new(public, head + b"." + body, hashlib.sha256).digest()
        return b".".join([head, body, base64.urlsafe_b64encode(mac).rstrip(b"=")]).decode()
    return jws.serialize_compact(header, payload, key, algorithms=[header["alg"]])


class _Handler(BaseHTTPRequestHandler):
    provider: OidcProvider

    def do_GET(self) -> None:
        path, query = self._asked()
        if self._misbehaves(path):
            return
        if path == "/.well-known/openid-configuration":
            self._json(200, self.provider.describe())
        elif path == "/keys":
            self._json(200, KeySet(self.provider.keys).as_dict(private=False))
        elif path == "/authorize":
            self._page(self.provider.back(query))
        else:
            self._json(404, {})

    def do_POST(self) -> None:
        path, _ = self._asked()
        form = _flat(self.rfile.read(int(self.headers["Content-Length"])).decode())
        if not self._misbehaves(path):
            self._json(*self.provider.token(form, self.headers.get("Authorization")))

    def log_message(self, *_: Any) -> None:
        pass

    def _asked(self) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        path = parts.path.removeprefix("/realms/test")
        self.provider.seen.append(path)
        return path, _flat(parts.query)

    def _misbehaves(self, path: str) -> bool:
        what = self.provider.answers.get(path)
        if what == "slow":
            self.provider.is_over.wait(60)
        elif what == "trickle":
            self._trickle()
        elif what == "huge":
            self._send(200, b'{"issuer": "' + b"x" * 1_000_000 + b'"}')
        elif what == "loop":
            self._send(302, b"", Location=self.path)
        elif what == "status":
            self._send(500, b"{}")
        elif what == "text":
            self._send(200, b"<html>")
        elif what == "deep":
            self._send(200, b"[" * 100_000)
        return what is not None

    def _trickle(self) -> None:
        """A byte from time to time: each read is in time, the whole is not."""
        with suppress(OSError):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not self.provider.is_over.wait(0.2):
                self.wfile.write(b"a")

    def _json(self, status: int, document: Any) -> None:
        self._send(status, json.dumps(document).encode(), Content_Type="application/json")

    def _page(self, address: str) -> None:
        head = '<!doctype html><title>Provider</title><link rel="icon" href="data:,">'
        page = f'{head}<a href="{html.escape(address)}">Sign in as ann</a>'
        self._send(200, page.encode(), Content_Type="text/html; charset=utf-8", X_Back=address)

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(OSError):  # who asked may have gone
            self.wfile.write(body)


def _flat(query: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(query).items()}


@contextmanager
def running_provider(host: str = "127.0.0.1") -> Iterator[OidcProvider]:
    """A provider on a port of this machine, until the end of the block."""
    provider = OidcProvider(host=host)
    handler = type("Handler", (_Handler,), {"provider": provider})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    provider.port = server.server_address[1]
    provider.rotate()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        provider.is_over.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


def oidc_settings(provider: OidcProvider, console_url: str, **changes: str) -> dict[str, str]:
    """Settings of an ingest whose console is at this address."""
    usual = {
        "CONSOLE_SECRET": CONSOLE_SECRET, "CONSOLE_URL": console_url, "OIDC_ISSUER": provider.issuer,
        "OIDC_CLIENT_ID": CLIENT_ID, "OIDC_CLIENT_SECRET": CLIENT_SECRET, "OIDC_TENANT": "acme",
        "OIDC_ROLES": "urn:x:bosses:admin, ops:operator,support:viewer",
    }  # fmt: skip
    return {f"HOLDFAST_{name}": value for name, value in (usual | changes).items() if value}


class Traveller:
    """A browser on its way to the provider and back."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser

    def link(self, path: str = "/console/sign-in") -> str:
        """The way to the provider on the sign-in page."""
        [found] = re.findall(r'href="([^"]+/console/oidc/start[^"]*)"', self.browser.get(path).text)
        return html.unescape(found)

    def start(self, path: str = "/console/sign-in") -> str:
        """Where the provider would be asked; the browser has an attempt then."""
        answer = self.browser.http.get(self.link(path))
        assert answer.status_code == 303, answer.text
        return str(answer.headers["location"])

    def back(self, path: str = "/console/sign-in") -> str:
        """With what the provider sends the browser back."""
        return str(httpx.get(self.start(path)).headers["x-back"])

    def come_in(self, path: str = "/console/sign-in") -> httpx.Response:
        answer: httpx.Response = self.browser.http.get(self.back(path))
        return answer


def is_in(browser: Any) -> bool:
    """Whether somebody is signed in."""
    return bool(browser.get("/console/events").status_code == 200)
