"""Recording events from an application of one's own, in the transaction of what it has written.

::

    from holdfast.recording import Holdfast

    holdfast = Holdfast(tenant="acme", redis_url="redis://…")

    with Session(engine) as session, session.begin():
        session.add(Order(id="7", amount_cents=4200))
        holdfast.record(session, {"type": "com.acme.order.placed", "source": "/shop", "data": {"order": "7"}})

The order and its event are committed together, or neither is. For applications whose tables are in Holdfast's database;
others POST their events.
"""

from holdfast.domain.errors import IdentityTaken, KeyMissing
from holdfast.domain.window_options import Debounce, Unique
from holdfast.recording.holdfast import Holdfast, Recorded

__all__ = ["Debounce", "Holdfast", "IdentityTaken", "KeyMissing", "Recorded", "Unique"]
