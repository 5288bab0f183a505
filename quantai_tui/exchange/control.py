"""The control messages that a client sends on a stream connection: what they ask for, and Binance's answers to bad ones."""

from __future__ import annotations

from typing import Any

import msgspec

_METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
_INVALID_REQUEST = 2
_INVALID_JSON = 3


class ControlError(Exception):
    """A request that is refused; `reply` is the frame that says so."""

    def __init__(self, code: int, msg: str, request_id: int | str | None = None) -> None:
        super().__init__(msg)
        error = {"code": code, "msg": msg}
        # Without an id there is nothing to answer to: then the venue sends the bare pair.
        self.reply = msgspec.json.encode(error if request_id is None else {"error": error, "id": request_id})


class Request(msgspec.Struct, frozen=True):
    """A well-formed control message. `params` are stream names, or the name of a property and its value."""

    method: str
    id: int | str | None
    params: list[Any]

    def stream_names(self, room: int) -> list[str]:
        """The params as stream names. Raises ControlError when there is none, one is no text, or they are more than `room`."""
        if not self.params:
            raise ControlError(_INVALID_REQUEST, "Invalid request: missing field `params`", self.id)
        if not all(isinstance(name, str) for name in self.params):
            raise ControlError(_INVALID_REQUEST, "Invalid request: params must be an array of strings", self.id)
        if len(self.params) > room:
            raise ControlError(_INVALID_REQUEST, "Invalid request: too many parameters", self.id)
        return self.params

    def combined_value(self) -> bool:
        """The value that SET_PROPERTY gives to `combined`, the one property there is."""
        self.require_combined()
        if len(self.params) != 2 or not isinstance(self.params[1], bool):
            raise ControlError(1, "Invalid value type: expected Boolean", self.id)
        return self.params[1]

    def require_combined(self) -> None:
        if not self.params or self.params[0] != "combined":
            raise ControlError(0, "Unknown property", self.id)


def parse(message: str | bytes) -> Request:
    """A client's message as a request. Raises ControlError, which carries the reply to send."""
    try:
        frame = msgspec.json.decode(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ControlError(_INVALID_JSON, f"Invalid JSON: {error}") from error
    if not isinstance(frame, dict):
        raise ControlError(_INVALID_REQUEST, "Invalid request: expected an object")
    request_id = frame.get("id")
    whole = isinstance(request_id, int) and not isinstance(request_id, bool) and request_id >= 0
    if not (request_id is None or whole or (isinstance(request_id, str) and 0 < len(request_id) <= 36)):
        raise ControlError(_INVALID_REQUEST, "Invalid request: request ID must be an unsigned integer")
    method = frame.get("method")
    if method is None:
        raise ControlError(_INVALID_REQUEST, "Invalid request: missing field `method`", request_id)
    if method not in _METHODS:
        expected = ", ".join(f"`{name}`" for name in _METHODS)
        raise ControlError(
            _INVALID_REQUEST, f"Invalid request: unknown variant `{method}`, expected one of {expected}", request_id
        )
    params = frame.get("params", [])
    if not isinstance(params, list):
        raise ControlError(_INVALID_REQUEST, "Invalid request: params must be an array of strings", request_id)
    return Request(method, request_id, params)


def acknowledgement(request: Request, result: list[str] | bool | None = None) -> bytes:
    """The reply to a request that was carried out."""
    return msgspec.json.encode({"result": result, "id": request.id})
