"""Between engine and dashboards: messages, their version, and a link over a Unix socket."""

from .base import EngineLink, LinkState, LinkStatus
from .messages import (
    PROTOCOL_VERSION,
    Ack,
    Command,
    CommandName,
    FaultOffer,
    HistoryWindow,
    Moment,
    SaveResult,
    SettingChange,
    SettingField,
    SettingProblem,
    SettingsForm,
    SettingsPreview,
    SettingsText,
)
from .socket import EngineUnavailable, SocketLink

__all__ = [
    "PROTOCOL_VERSION",
    "Ack",
    "Command",
    "CommandName",
    "EngineLink",
    "EngineUnavailable",
    "FaultOffer",
    "HistoryWindow",
    "LinkState",
    "LinkStatus",
    "Moment",
    "SaveResult",
    "SettingChange",
    "SettingField",
    "SettingProblem",
    "SettingsForm",
    "SettingsPreview",
    "SettingsText",
    "SocketLink",
]
