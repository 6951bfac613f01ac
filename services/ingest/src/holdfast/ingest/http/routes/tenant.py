"""``GET /v1/tenant``: how the key's tenant stands in the turns. What is set for it is changed on the database alone."""

from flask import Blueprint, Response, json

from holdfast.ingest.connection import reconnecting
from holdfast.ingest.http.auth import require
from holdfast.ingest.http.parts import parts
from holdfast.ingest.http.views import rfc3339
from holdfast.storage import tenants

__all__ = ["blueprint"]

blueprint = Blueprint("tenant", __name__)


@blueprint.get("/v1/tenant")
def show() -> Response:
    """Its weight, its backlog limit, and how much waits."""
    holder = require("events:read")
    found = reconnecting(lambda: parts().database.call(tenants.standing, holder.tenant))
    settings = found.settings
    usual: float = parts().settings.backlog_limit_seconds
    # Without a limit in the service's settings it turns nobody away, whatever is set for a tenant.
    own = settings.backlog_seconds if usual else None
    body = {
        "name": settings.name,
        "weight": settings.weight,
        "waiting": found.waiting,
        "backlog": {
            "limit_seconds": usual if own is None else own,
            "is_own": own is not None,
            "oldest_due_seconds": round(found.oldest_due_seconds, 3),
        },
        "updated_at": rfc3339(settings.updated_at),
    }
    return Response(json.dumps(body), content_type="application/json")
