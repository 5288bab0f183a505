"""Between engine and dashboards: messages, their version, and a link over a Unix socket."""

from .base import EngineLink, LinkState, LinkStatus
from .messages import (
    PROTOCOL_VERSION,
    Ack,
    Command,
    CommandName,
    FaultOffer,
    SaveResult,
    SettingField,
    SettingProblem,
    SettingsForm,
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
    "LinkState",
    "LinkStatus",
    "SaveResult",
    "SettingField",
    "SettingProblem",
    "SettingsForm",
    "SocketLink",
]
