"""What operators set up over the API: keys, schedules, pauses, retention."""

from holdfast.client.administration import Administration
from holdfast.client.keeping import Keeping
from holdfast.client.pauses import Pausing
from holdfast.client.schedules import Scheduling

__all__ = ["Managing"]


class Managing(Administration, Scheduling, Keeping, Pausing):
    """All of it, for :class:`~holdfast.client.Client`."""
