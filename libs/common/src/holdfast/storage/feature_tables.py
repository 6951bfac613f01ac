"""The tables of single features, for ``tables``: each is declared in a module of its own."""

from holdfast.storage.cancel_tables import CancelRequest
from holdfast.storage.data_key_tables import DataKey
from holdfast.storage.flow_tables import FlowVersion, HandlerRoute, Pause, RateStart, Tenant
from holdfast.storage.group_tables import EventGroup, EventGroupMember
from holdfast.storage.retention_tables import ErasureJob, EventIdentity, RetentionRow, RetentionWalk
from holdfast.storage.schedule_tables import ScheduleRow
from holdfast.storage.step_tables import EventStep
from holdfast.storage.window_tables import EventWindow

__all__ = [
    "CancelRequest", "DataKey", "ErasureJob", "EventGroup", "EventGroupMember", "EventIdentity", "EventStep",
    "EventWindow", "FlowVersion", "HandlerRoute", "Pause", "RateStart", "RetentionRow", "RetentionWalk", "ScheduleRow",
    "Tenant",
]  # fmt: skip
