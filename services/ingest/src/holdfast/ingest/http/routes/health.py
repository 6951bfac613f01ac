"""``/livez`` and ``/readyz``."""

from flask import Blueprint, Response

from holdfast.ingest.http.parts import parts
from holdfast.runtime.health import readiness

__all__ = ["blueprint"]

blueprint = Blueprint("health", __name__)


@blueprint.get("/livez")
def livez() -> Response:
    """The process answers. Asks nobody else."""
    return Response('{"status": "ok"}', content_type="application/json")


@blueprint.get("/readyz")
def readyz() -> Response:
    """200 while events can be accepted, ``degraded`` without Redis; 503 without the database or its schema."""
    answer = readiness(parts().checks)
    return Response(answer.body(), answer.http_status, content_type="application/json")
