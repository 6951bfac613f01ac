"""What lets people in to the console, made once for a process."""

from dataclasses import dataclass, field

from holdfast.ingest.console.oidc.client import OidcClient
from holdfast.ingest.console.seal import Seal
from holdfast.ingest.console.throttle import Throttle

__all__ = ["Door"]


@dataclass(frozen=True, slots=True)
class Door:
    """Sessions, the provider, and who has failed too often.

    Attributes:
        keys: failed sign-ins with keys; those with OpenID Connect are counted apart, so that neither shuts the other out.
        oidc: ``None`` where people sign in with keys alone.
    """

    seal: Seal
    oidc: OidcClient | None
    keys: Throttle = field(default_factory=Throttle)
    people: Throttle = field(default_factory=Throttle)
