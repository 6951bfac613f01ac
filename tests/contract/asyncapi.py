"""The published description of the live protocol, and whether a frame is as it says."""

from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

__all__ = ["AsyncApi"]

DOCUMENT = Path(__file__).parents[2] / "docs" / "asyncapi.yaml"


class AsyncApi:
    """``docs/asyncapi.yaml``, read once."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = yaml.safe_load(DOCUMENT.read_text())
        self._validators: dict[str, Draft202012Validator] = {}

    def at(self, reference: str) -> Any:
        """What a reference within the document leads to."""
        node: Any = self.document
        for name in reference.removeprefix("#/").split("/"):
            node = node.get(name)
        return node

    def payload(self, kind: str) -> dict[str, Any]:
        """The schema of a frame."""
        schema: dict[str, Any] = self.document["components"]["messages"][kind]["payload"]
        return schema

    def validate(self, frame: dict[str, Any]) -> None:
        self._validator(frame["type"]).validate(frame)

    def is_valid(self, frame: dict[str, Any]) -> bool:
        return bool(self._validator(frame["type"]).is_valid(frame))

    def _validator(self, kind: str) -> Draft202012Validator:
        if kind not in self._validators:
            # Within a resource of its own, so that the document's references lead to the document.
            schema = {"components": self.document["components"], **self.payload(kind)}
            Draft202012Validator.check_schema(schema)
            checker = Draft202012Validator.FORMAT_CHECKER
            self._validators[kind] = Draft202012Validator(schema, format_checker=checker)
        return self._validators[kind]
