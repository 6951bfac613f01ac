"""The contracts themselves: exported schemas and golden examples."""

import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from holdfast.messaging.contracts import CONTRACTS, FOLDER, schemas

Golden = Callable[[str], dict[str, Any]]


def schema(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((FOLDER / f"{name}.schema.json").read_text())
    return read


def validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(
        schema(name), format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )  # fmt: skip


def test_the_exported_schemas_are_those_of_the_models() -> None:
    written = {path.name: path.read_text() for path in FOLDER.glob("*.schema.json")}

    assert written == schemas(), "run: python -m holdfast.messaging.contracts"


def test_every_contract_has_a_golden_example_and_no_example_is_left_over() -> None:
    assert {path.stem for path in (FOLDER / "golden").glob("*.json")} == set(CONTRACTS)


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_schema_is_one(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(name))


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_golden_example_fits_its_schema_and_its_model(golden: Golden, name: str) -> None:
    validator(name).validate(golden(name))

    parsed = CONTRACTS[name].model_validate(golden(name))
    assert json.loads(parsed.model_dump_json()) == golden(name)


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_golden_example_shows_every_field(golden: Golden, name: str) -> None:
    assert set(golden(name)) == set(CONTRACTS[name].model_fields)


@pytest.mark.parametrize("name", CONTRACTS)
def test_schema_and_model_refuse_the_same_omissions(golden: Golden, name: str) -> None:
    for field in golden(name):
        without = {key: value for key, value in golden(name).items() if key != field}

        is_optional = validator(name).is_valid(without)

        assert is_optional == (not CONTRACTS[name].model_fields[field].is_required()), field


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_field_from_a_later_release_is_ignored(golden: Golden, name: str) -> None:
    newer = golden(name) | {"field_of_tomorrow": {"a": 1}}

    validator(name).validate(newer)
    assert CONTRACTS[name].model_validate(newer) == CONTRACTS[name].model_validate(golden(name))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("doorbell.v1", {"version": 0}),
        ("doorbell.v1", {"event_id": "7"}),
        ("update.v1", {"state": "asleep"}),
        ("update.v1", {"version": 0}),
        ("update.v1", {"step": -1}),
        ("update.v1", {"detail": None}),
        ("live-token.v1", {"aud": "another"}),
        ("live-token.v1", {"aud": ["another"]}),
        ("live-token.v1", {"exp": "1794651300"}),
        ("live-token.v1", {"exp": 1794651300000}),
        ("live-token.v1", {"iat": True}),
        ("live-token.v1", {"nbf": -1}),
        ("live-token.v1", {"jti": "a" * 256}),
        ("live-token.v1", {"topics": []}),
        ("live-token.v1", {"sub": ""}),
    ],
)
def test_schema_and_model_refuse_the_same_values(golden: Golden, name: str, wrong: dict[str, Any]) -> None:
    example = golden(name) | wrong

    assert not validator(name).is_valid(example)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CONTRACTS[name].model_validate(example)
