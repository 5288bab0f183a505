"""The resilient market-data stream: stays connected to Binance's protocol, and fetches over REST what it missed."""

from .advice import FailureKind, WebSocketErrorType
from .backoff import ExponentialBackoffReconnector, ReconnectRecord
from .batches import TradeBatch
from .config import BackfillStart, StreamConfig, StreamSettings
from .failures import Failure, HttpStatusError, LinkFault, Phase, classify
from .gate import Gate
from .heartbeat import WebSocketHeartbeat
from .ledger import Origin, Outcome, SymbolLedger
from .rest import RestClient
from .sink import Position, TradeSink
from .states import IllegalTransition, StateMachine
from .stream import ResilientStream

__all__ = [
    "BackfillStart",
    "ExponentialBackoffReconnector",
    "Failure",
    "FailureKind",
    "Gate",
    "HttpStatusError",
    "IllegalTransition",
    "LinkFault",
    "Origin",
    "Outcome",
    "Phase",
    "Position",
    "ReconnectRecord",
    "ResilientStream",
    "RestClient",
    "StateMachine",
    "StreamConfig",
    "StreamSettings",
    "SymbolLedger",
    "TradeBatch",
    "TradeSink",
    "WebSocketErrorType",
    "WebSocketHeartbeat",
    "classify",
]
