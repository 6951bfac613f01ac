"""The troubles of a provider of OpenID Connect: away, slow, wrong, or with other keys and settings."""

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest
from tests.contract.console import words_of as text_of
from tests.contract.oidc_provider import (
    CLIENT_SECRET,
    CONSOLE_SECRET,
    OidcProvider,
    Traveller,
    is_in,
    oidc_settings,
)

from holdfast.ingest.console.oidc.failures import SignInFailed
from holdfast.ingest.console.oidc.fetching import Fetcher
from holdfast.ingest.console.oidc.provider import REFRESH_SECONDS
from holdfast.ingest.console.throttle import MOST_FAILURES
from holdfast.local.servers import Postgres, Valkey, free_port
from holdfast.runtime.telemetry import Log

WITHIN_SECONDS = 5.0

Visitor = Callable[..., Any]


@pytest.fixture(scope="module")
def ingest_settings(provider_process: OidcProvider) -> dict[str, str]:
    port = free_port()
    return oidc_settings(provider_process, f"http://127.0.0.1:{port}") | {
        "HOLDFAST_INGEST_PORT": str(port), "HOLDFAST_INGEST_PROCESSES": "1",
    }  # fmt: skip


@pytest.fixture
def fresh(
    ingest: Any, start_ingest: Any, postgres: Postgres, valkey: Valkey, provider: OidcProvider
) -> Callable[..., Any]:
    def start(**changes: str) -> Any:
        port = free_port()
        return start_ingest(
            postgres, valkey, database=ingest.database.engine.url.database, HOLDFAST_INGEST_PORT=str(port),
            HOLDFAST_INGEST_PROCESSES="1", **oidc_settings(provider, f"http://127.0.0.1:{port}", **changes),
        )  # fmt: skip

    return start


def come_in(person: Any, made: Any) -> httpx.Response:
    answer: httpx.Response = person(made.url).come_in()
    return answer


HOWS = {
    "slow": "provider_timeout", "trickle": "provider_timeout", "huge": "provider_too_large", "loop": "provider_redirect",
    "status": "provider_status", "text": "provider_not_json", "deep": "provider_not_json",
}  # fmt: skip
"""How a provider misbehaves → the code in the log."""


def check_trouble(made: Any, ann: Traveller, url: str, code: str) -> None:
    """It is told in time, and nobody is in."""
    began = time.monotonic()
    answer = ann.browser.http.get(url)

    assert time.monotonic() - began < WITHIN_SECONDS
    assert answer.status_code in (502, 503)
    assert "API key" in text_of(answer)
    assert made.lines()[-1]["code"] == code
    assert not is_in(ann.browser)


@pytest.mark.parametrize("how", HOWS)
def test_a_provider_that_misbehaves_is_said_to_in_time_and_keys_still_sign_in(
    ingest: Any, provider: OidcProvider, person: Any, fresh: Any, how: str
) -> None:
    provider.answers = {"/.well-known/openid-configuration": how}
    made = fresh()
    ann = person(made.url)

    check_trouble(made, ann, ann.link(), HOWS[how])

    assert ann.browser.sign_in(ingest.key("events:read")).status_code == 303
    assert is_in(ann.browser)


def test_a_provider_that_misbehaves_later_is_said_to_in_time_as_well(
    provider: OidcProvider, person: Any, fresh: Any
) -> None:
    made = fresh()
    ann = person(made.url)
    for how, code in (HOWS | {"status": "not_exchanged"}).items():
        back = ann.back()
        provider.answers = {"/token": how}
        check_trouble(made, ann, back, code)
        provider.answers = {}
    back = ann.back()
    provider.answers = {"/keys": "slow"}
    check_trouble(made, ann, back, "provider_timeout")


def test_a_provider_that_is_back_lets_people_in_again(
    provider: OidcProvider, person: Any, fresh: Any, eventually: Any
) -> None:
    made = fresh()
    provider.answers = {"/.well-known/openid-configuration": "status"}
    ann = person(made.url)
    assert ann.browser.http.get(ann.link()).status_code == 503
    asked = len(provider.seen)
    assert ann.browser.http.get(ann.link()).status_code == 503
    assert len(provider.seen) == asked, "a provider that has just failed is left alone"

    provider.answers = {}

    eventually(lambda: ann.browser.http.get(ann.link()).status_code == 303)
    ann.come_in()
    assert is_in(ann.browser)


def test_people_who_wait_for_a_slow_provider_leave_threads_for_others(
    provider: OidcProvider, person: Any, fresh: Any
) -> None:
    made = fresh(INGEST_THREADS="4")
    people = [person(made.url) for _ in range(6)]
    ways = [each.back() for each in people]
    provider.answers = {"/token": "slow"}

    def come(number: int) -> httpx.Response:
        answer: httpx.Response = people[number].browser.http.get(ways[number])
        return answer

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(come, range(6)))

    codes = sorted(line["code"] for line in made.lines() if line["message"] == Log.SIGN_IN_REFUSED)
    assert [each.status_code for each in answers] == [503] * 6
    assert codes == ["provider_busy"] * 5 + ["provider_timeout"]


def test_a_key_that_was_rotated_is_looked_up_again_and_not_more_than_once_a_minute(
    provider: OidcProvider, person: Any, fresh: Any
) -> None:
    made = fresh()
    assert come_in(person, made).status_code == 200
    provider.rotate()
    provider.seen.clear()

    assert come_in(person, made).status_code == 200
    assert provider.seen.count("/keys") == 1
    provider.header = {"kid": "unknown"}
    for _ in range(3):
        assert come_in(person, made).status_code == 502
    assert provider.seen.count("/keys") == 1, f"not again within {REFRESH_SECONDS} s"


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
@pytest.mark.parametrize("algorithm", ["ES256", "PS256", "EdDSA"])
def test_other_kinds_of_keys_count_too(provider: OidcProvider, person: Any, fresh: Any, algorithm: str) -> None:
    provider.algorithm = algorithm
    provider.rotate()
    made = fresh()

    assert come_in(person, made).status_code == 200


def test_a_token_without_the_name_of_its_key_counts_while_there_is_one_alone(
    provider: OidcProvider, person: Any, fresh: Any
) -> None:
    provider.header = {"kid": None}
    first = provider.keys[0]
    assert come_in(person, fresh()).status_code == 200
    provider.rotate()
    provider.keys.append(first)

    assert come_in(person, fresh()).status_code == 502


def test_a_public_client_has_no_secret(provider: OidcProvider, person: Any, fresh: Any) -> None:
    provider.is_public = True

    assert come_in(person, fresh(OIDC_CLIENT_SECRET="")).status_code == 200


def test_the_secret_may_be_in_a_file_and_go_in_the_form(
    provider: OidcProvider, person: Any, fresh: Any, tmp_path: Path
) -> None:
    provider.method = "client_secret_post"
    (tmp_path / "secret").write_text(f"{CLIENT_SECRET}\n")
    made = fresh(OIDC_CLIENT_SECRET="", OIDC_CLIENT_SECRET_FILE=str(tmp_path / "secret"))

    assert come_in(person, made).status_code == 200


def test_a_wrong_secret_is_named(person: Any, fresh: Any) -> None:
    answer = come_in(person, fresh(OIDC_CLIENT_SECRET="another"))

    assert answer.status_code == 502
    assert "HOLDFAST_OIDC_CLIENT_ID" in text_of(answer)


def test_a_claim_may_name_the_tenant_and_be_within_another(provider: OidcProvider, person: Any, fresh: Any) -> None:
    made = fresh(OIDC_TENANT="", OIDC_TENANT_CLAIM="holdfast.tenant", OIDC_ROLES_CLAIM="realm_access.roles")
    provider.person |= {"holdfast.tenant": "umbrella", "realm_access": {"roles": ["support"]}}
    ann = person(made.url)
    ann.come_in()
    assert "umbrella" in ann.browser.get("/console/").text

    for wrong in (["umbrella", "acme"], "../acme", None):
        provider.person["holdfast.tenant"] = wrong
        answer = come_in(person, made)
        assert answer.status_code == 403
        assert "HOLDFAST_OIDC_TENANT_CLAIM" in text_of(answer)


@pytest.mark.parametrize(
    "wrong",
    [{"issuer": "https://evil.example"}, {"token_endpoint": "http://evil.example/token"}, {"jwks_uri": None},
     {"authorization_endpoint": "javascript:alert(1)"}, {"token_endpoint": "http://127.0.0.1:x/"}],
)  # fmt: skip
def test_a_provider_that_says_something_else_of_itself_is_not_used(
    provider: OidcProvider, person: Any, fresh: Any, wrong: dict[str, Any]
) -> None:
    provider.metadata = wrong
    ann = person(fresh().url)

    answer = ann.browser.http.get(ann.link())

    assert answer.status_code == 503
    assert "does not fit" in text_of(answer)


def test_a_provider_that_promises_its_name_has_to_give_it(provider: OidcProvider, person: Any, fresh: Any) -> None:
    made = fresh()
    provider.authorization = {"iss": None}
    assert come_in(person, made).status_code == 200
    provider.metadata = {"authorization_response_iss_parameter_supported": True}

    assert come_in(person, fresh()).status_code == 400


def test_codes_that_the_provider_refuses_are_counted_apart_from_keys(ingest: Any, person: Any, fresh: Any) -> None:
    made = fresh()
    for _ in range(MOST_FAILURES):
        ann = person(made.url)
        asked = dict(parse_qsl(urlsplit(ann.start()).query))
        wrong = urlencode({"state": asked["state"], "code": "guessed"})
        assert ann.browser.get(f"/console/oidc/callback?{wrong}").status_code == 400

    ann = person(made.url)
    assert ann.browser.http.get(ann.link()).status_code == 429
    assert ann.browser.sign_in(ingest.key("events:read")).status_code == 303


def test_without_a_provider_there_is_no_such_way_in(ingest: Any, visitor: Visitor, start_ingest: Any, postgres: Postgres,
                                                    valkey: Valkey) -> None:  # fmt: skip
    made = start_ingest(
        postgres, valkey, database=ingest.database.engine.url.database, HOLDFAST_INGEST_PROCESSES="1",
        HOLDFAST_CONSOLE_SECRET=CONSOLE_SECRET,
    )  # fmt: skip
    browser = visitor(url=made.url)

    assert "oidc" not in browser.get("/console/sign-in").text
    assert browser.get("/console/oidc/start").status_code == 404


def test_a_provider_is_slow_also_when_the_socket_notices_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def notice(*_: object, **__: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", notice)

    with pytest.raises(SignInFailed) as failed:
        Fetcher(most_at_once=1).get("http://127.0.0.1:1/", deadline=time.monotonic() + 60)

    assert failed.value.code == "provider_timeout"
