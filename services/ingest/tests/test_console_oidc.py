"""Signing in with OpenID Connect: who gets in, as what, and each way of tricking the console that must not work."""

import hashlib
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx
import jwt
import pytest
from itsdangerous import TimestampSigner, URLSafeTimedSerializer
from tests.contract.console import words_of as text_of
from tests.contract.oidc_provider import (
    CLIENT_ID,
    CLIENT_SECRET,
    CONSOLE_SECRET,
    OidcProvider,
    Traveller,
    is_in,
    oidc_settings,
)

from holdfast.ingest.console.oidc.attempt import Attempt, AttemptSeal, begin_attempt
from holdfast.ingest.console.oidc.id_token import ALGORITHMS
from holdfast.ingest.console.oidc.person import Person
from holdfast.ingest.console.roles import Role
from holdfast.ingest.console.seal import PERSON_SECONDS, SESSION_SECONDS, Seal, begin_for
from holdfast.local.servers import free_port

WITHIN_SECONDS = 5.0

Visitor = Callable[..., Any]


@pytest.fixture(scope="module")
def ingest_settings(provider_process: OidcProvider) -> dict[str, str]:
    port = free_port()
    return oidc_settings(provider_process, f"http://127.0.0.1:{port}") | {
        "HOLDFAST_INGEST_PORT": str(port), "HOLDFAST_INGEST_PROCESSES": "1",
    }  # fmt: skip


def test_somebody_comes_in_by_the_provider_and_the_page_they_wanted_follows(
    ingest: Any, provider: OidcProvider, person: Any
) -> None:
    ann = person()

    asked = dict(parse_qsl(urlsplit(ann.start("/console/sign-in?next=/console/events%3Fstate%3Ddead")).query))
    answer = ann.browser.http.get(provider.back(asked))

    assert asked["redirect_uri"] == f"{ingest.url}/console/oidc/callback"
    assert '<meta http-equiv="refresh" content="0;url=/console/events?state=dead">' in answer.text
    cookies = [each for each in answer.headers.get_list("set-cookie") if each.startswith("holdfast_console=")]
    assert {"HttpOnly", "SameSite=Strict", "Path=/console", f"Max-Age={PERSON_SECONDS}"} <= set(cookies[0].split("; "))
    page = ann.browser.get("/console/")
    assert "ann@example.com" in page.text
    assert "Operator" in page.text
    assert "/console/keys" not in page.text


def test_nothing_of_the_tokens_is_kept_or_logged(ingest: Any, provider: OidcProvider, person: Any) -> None:
    provider.person["note"] = "planted-claim"
    ann = person()
    back = ann.back()
    ann.browser.http.get(back)

    code = parse_qs(urlsplit(back).query)["code"][0]
    log = ingest.log.read_text()
    for secret in (code, "planted-claim", CLIENT_SECRET, "ann@example.com", "eyJ"):
        assert secret not in log
    cookie = ann.browser.http.cookies["holdfast_console"]
    assert len(cookie) < 600
    assert "holdfast_console_oidc" not in ann.browser.http.cookies


@pytest.mark.parametrize(
    ("groups", "role"),
    [(["support"], "Viewer"), (["x", "support", "ops"], "Operator"), ("urn:x:bosses", "Admin")],
)
def test_the_claim_decides_the_role(provider: OidcProvider, person: Any, groups: Any, role: str) -> None:
    provider.person["groups"] = groups
    ann = person()
    ann.come_in()

    assert f"<dd>{role}</dd>" in ann.browser.get("/console/").text


def test_a_viewer_changes_nothing_and_an_operator_is_named_in_the_audit_log(
    provider: OidcProvider, person: Any, put: Any, api: Any
) -> None:
    event_id = put("dead")
    viewer, operator = person(), person()
    provider.person = {"sub": "vic-1", "email": "vic@example.com", "groups": ["support"]}
    viewer.come_in()
    provider.person = {"sub": "ann-1", "email": "ann@example.com", "groups": ["ops"]}
    operator.come_in()
    form = {"request": "a-key-of-the-form"}

    refused = viewer.browser.send(f"/console/events/{event_id}/replay", form)
    done = operator.browser.send(f"/console/events/{event_id}/replay", form)

    assert (refused.status_code, done.status_code) == (403, 303)
    [entry] = api("GET", "/v1/audit", params={"event_id": event_id}).json()["items"]
    assert entry["actor"] == {"kind": "oidc", "id": "oidc:ann-1", "name": "ann@example.com"}
    assert entry["action"] == "replay"
    assert "ann@example.com" in text_of(operator.browser.get("/console/audit?actor=ann@example.com"))
    [signed_in] = api("GET", "/v1/audit", params={"actor": "oidc:vic-1"}).json()["items"]
    assert signed_in["detail"] == {"issuer": provider.issuer, "role": "viewer"}


def test_an_address_that_the_provider_has_not_verified_names_nobody(provider: OidcProvider, person: Any) -> None:
    provider.person |= {"email": "boss@example.com", "email_verified": False, "preferred_username": "ann"}
    ann = person()
    ann.come_in()

    page = ann.browser.get("/console/").text
    assert "boss@example.com" not in page
    assert "<dd>ann " in page


def test_the_live_token_is_for_the_tenant_and_the_person_alone(provider: OidcProvider, person: Any) -> None:
    provider.person |= {"groups": ["support"], "sub": "s" * 255}
    ann = person()
    ann.come_in()

    answer = ann.browser.send("/console/live-token").json()

    claims = jwt.decode(answer["token"], options={"verify_signature": False})
    assert (claims["tenant"], claims["topics"]) == ("acme", ["tenant:acme", "event:*"])
    assert claims["sub"].startswith("console:")
    assert claims["exp"] - claims["iat"] == 300


def test_who_has_no_role_is_told_which_claim_had_what_and_stays_outside(provider: OidcProvider, person: Any) -> None:
    provider.person["groups"] = ["<script>alert(1)</script>", "y" * 500, *(f"g{number}" for number in range(20)), 7]
    ann = person()

    answer = ann.come_in()

    assert answer.status_code == 403
    assert "<script>alert" not in answer.text
    said = text_of(answer)
    assert "HOLDFAST_OIDC_ROLES" in said
    assert "The claim groups has: <script>alert(1)</script>" in said
    assert "y" * 100 in said
    assert "y" * 101 not in said
    assert "g7" in said
    assert "g8" not in said
    assert "and 12 more" in said
    assert not is_in(ann.browser)


def test_a_token_without_the_claim_is_said_to_be_so(provider: OidcProvider, person: Any) -> None:
    del provider.person["groups"]

    said = text_of(person().come_in())

    assert "The id token has no claim groups" in said


# Ways to trick it.


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"nonce": "another"}, "nonce"), ({"nonce": None}, "nonce"),
        ({"aud": "another"}, "aud"), ({"aud": ["another"]}, "aud"), ({"aud": None}, "aud"),
        ({"aud": [CLIENT_ID, "another"]}, "azp"), ({"azp": "another"}, "azp"),
        ({"iss": "https://evil.example"}, "iss"), ({"iss": None}, "iss"),
        ({"exp": 1_000_000_000}, "exp"), ({"exp": None}, "exp"), ({"exp": "never"}, "exp"), ({"exp": float("nan")}, "exp"),
        ({"iat": 1_000_000_000}, "iat"), ({"iat": 9_000_000_000}, "iat"), ({"iat": None}, "iat"),
        ({"nbf": 9_000_000_000}, "nbf"),
        ({"sub": None}, "sub"), ({"sub": ""}, "sub"), ({"sub": 7}, "sub"), ({"sub": "s" * 256}, "sub"),
        ({"sub": "a\nb"}, "sub"),
    ],
)  # fmt: skip
def test_an_id_token_that_is_not_for_this_sign_in_lets_nobody_in(
    ingest: Any, provider: OidcProvider, person: Any, wrong: dict[str, Any], code: str
) -> None:
    provider.claims = wrong
    ann = person()

    answer = ann.come_in()

    assert answer.status_code == 502
    assert "id token does not count" in text_of(answer)
    assert ingest.lines()[-1]["code"] == f"id_token_{code}"
    assert not is_in(ann.browser)


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_a_token_that_anybody_could_have_made_lets_nobody_in(
    ingest: Any, provider: OidcProvider, person: Any, algorithm: str
) -> None:
    provider.header = {"alg": algorithm}
    ann = person()

    assert ann.come_in().status_code == 502
    assert ingest.lines()[-1]["code"] == "id_token_algorithm"
    assert not is_in(ann.browser)
    assert not {each for each in ALGORITHMS if each.startswith("HS") or each == "none"}


def test_a_token_signed_with_another_key_of_the_same_name_lets_nobody_in(
    ingest: Any, provider: OidcProvider, person: Any
) -> None:
    person().come_in()
    known = provider.keys[0].kid
    provider.rotate()
    provider.header = {"kid": known}
    ann = person()

    assert ann.come_in().status_code == 502
    assert ingest.lines()[-1]["code"] == "id_token_signature"
    assert not is_in(ann.browser)


def test_a_code_brought_into_another_browser_lets_nobody_in(ingest: Any, person: Any) -> None:
    """Login CSRF: who follows a link must not come to work as whoever made it."""
    attacker, victim = person(), person()
    back = attacker.back()

    assert victim.browser.http.get(back).status_code == 400
    assert ingest.lines()[-1]["code"] == "no_attempt"
    victim.start()
    assert victim.browser.http.get(back).status_code == 400
    assert ingest.lines()[-1]["code"] == "state"
    assert not is_in(victim.browser)


def test_a_stolen_code_is_worth_nothing_in_an_attempt_of_ones_own(person: Any) -> None:
    victim, thief = person(), person()
    stolen = parse_qs(urlsplit(victim.back()).query)["code"][0]
    own = urlsplit(thief.back())

    answer = thief.browser.http.get(f"{own.path}?{urlencode(dict(parse_qsl(own.query)) | {'code': stolen})}")

    assert answer.status_code == 400
    assert "does not know this code" in text_of(answer)
    assert not is_in(thief.browser)


def test_an_answer_counts_once(ingest: Any, person: Any) -> None:
    ann, again = person(), person()
    asked = ann.start()
    kept = dict(ann.browser.http.cookies)
    back = httpx.get(asked).headers["x-back"]
    assert ann.browser.http.get(back).status_code == 200

    assert ann.browser.http.get(back).status_code == 400
    assert ingest.lines()[-1]["code"] == "no_attempt"
    again.browser.http.cookies.set("holdfast_console_oidc", kept["holdfast_console_oidc"], path="/console/oidc")
    assert again.browser.http.get(back).status_code == 400
    assert ingest.lines()[-1]["code"] == "code_refused"
    assert not is_in(again.browser)


def test_an_answer_of_another_provider_is_refused(ingest: Any, provider: OidcProvider, person: Any) -> None:
    """Mix-up: RFC 9207."""
    provider.authorization = {"iss": "https://evil.example"}
    ann = person()
    provider.seen.clear()

    assert ann.come_in().status_code == 400
    assert ingest.lines()[-1]["code"] == "issuer"
    assert "/token" not in provider.seen, "the code must not leave"
    assert not is_in(ann.browser)


def test_the_session_from_before_the_sign_in_counts_no_more_after_it(person: Any) -> None:
    """Fixation: neither the cookie nor the token of before."""
    ann = person()
    before = ann.browser.token("/console/sign-in")
    planted = ann.browser.http.cookies["holdfast_console"]
    ann.come_in()

    assert ann.browser.http.cookies["holdfast_console"] != planted
    assert ann.browser.send("/console/theme", {"csrf": before, "theme": "dark"}).status_code == 403
    ann.browser.http.cookies.set("holdfast_console", planted, path="/console")
    assert not is_in(person_of(ann, planted))


def person_of(ann: Traveller, cookie: str) -> Any:
    ann.browser.http.cookies.clear()
    ann.browser.http.cookies.set("holdfast_console", cookie, path="/console")
    return ann.browser


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "/console//evil.example",
        "/v1/events",
        "/console/oidc/start",
    ],
)
def test_nobody_is_led_elsewhere(person: Any, elsewhere: str) -> None:
    ann = person()
    started = ann.browser.get(f"/console/oidc/start?{urlencode({'next': elsewhere})}")
    back = httpx.get(started.headers["location"]).headers["x-back"]

    assert 'content="0;url=/console/"' in ann.browser.http.get(back).text


def test_an_attempt_cannot_be_made_with_a_cookie_of_another_kind(ingest: Any, person: Any) -> None:
    ann = person()
    ann.come_in()
    ann.browser.http.cookies.set(
        "holdfast_console_oidc", ann.browser.http.cookies["holdfast_console"], path="/console/oidc"
    )

    token = ann.browser.token()

    assert ann.browser.get(f"/console/oidc/callback?state={token}&code=x").status_code == 400
    assert ingest.lines()[-1]["code"] == "no_attempt"
    attempt = begin_attempt("/console/")
    assert AttemptSeal(CONSOLE_SECRET).open(AttemptSeal(CONSOLE_SECRET).close(attempt)) == attempt
    assert (
        AttemptSeal("another secret that is long enough too").open(AttemptSeal(CONSOLE_SECRET).close(attempt)) is None
    )
    assert isinstance(attempt, Attempt)


def test_parameters_that_come_twice_are_refused(ingest: Any, person: Any) -> None:
    ann = person()

    assert ann.browser.http.get(ann.back() + "&code=another").status_code == 400
    assert ingest.lines()[-1]["code"] == "repeated"


def test_a_refusal_at_the_provider_is_told_in_our_words(ingest: Any, provider: OidcProvider, person: Any) -> None:
    ann = person()
    provider.authorization = {"code": None, "error": "access_denied", "error_description": "<b>planted</b>"}
    answer = ann.come_in()
    assert answer.status_code == 403
    assert "refused or broken off" in text_of(answer)
    assert "planted" not in answer.text
    provider.authorization = {"code": None, "error": "planted"}

    assert "planted" not in ann.come_in().text
    assert "planted" not in ingest.log.read_text()


# The session afterwards.


def session_of(provider: OidcProvider, mark: str, role: Role = Role.OPERATOR) -> str:
    somebody = Person(provider.issuer, "ann-1", "ann@example.com", "acme", role)
    return Seal(CONSOLE_SECRET).close(begin_for(somebody, mark))


def test_a_session_of_other_settings_counts_no_more(provider: OidcProvider, person: Any) -> None:
    ann = person()

    assert not is_in(person_of(ann, session_of(provider, "0" * 32)))
    assert "notice=ended" in ann.browser.get("/console/events").headers["location"]


def sealed_ago(seconds: float, parts: list[Any]) -> str:
    class Past(TimestampSigner):
        def get_timestamp(self) -> int:
            return int(time.time() - seconds)

    return str(
        URLSafeTimedSerializer(
            CONSOLE_SECRET, salt=b"holdfast console session", signer=Past,
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
        ).dumps(parts)
    )  # fmt: skip


def test_a_session_of_a_person_lasts_an_hour_and_that_of_a_key_eight() -> None:
    person, key = ["csrf", "", "mark", ["https://i", "ann-1", "ann", "acme", "viewer"]], ["csrf", "akey", "proof"]
    seal = Seal(CONSOLE_SECRET)

    assert seal.open(sealed_ago(PERSON_SECONDS - 5, person)).person is not None
    assert not seal.open(sealed_ago(PERSON_SECONDS + 5, person)).is_signed_in
    assert seal.open(sealed_ago(PERSON_SECONDS + 5, key)).key_id == "akey"
    assert not seal.open(sealed_ago(SESSION_SECONDS + 5, key)).is_signed_in
    assert not seal.open(sealed_ago(0, [*person[:3], ["https://i", "ann-1", "ann", "acme", "king"]])).is_signed_in


def test_signing_out_ends_it(person: Any) -> None:
    ann = person()
    ann.come_in()

    assert ann.browser.send("/console/sign-out").status_code == 303
    assert not is_in(ann.browser)


# The provider's own troubles. Each test has a process of its own: a failure and the keys are remembered for a while.
