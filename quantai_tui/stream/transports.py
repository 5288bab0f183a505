"""The transport that the settings choose."""

from __future__ import annotations

import importlib.util
import logging
import ssl
from collections.abc import Callable

from ..telemetry import SYSTEM_CLOCK, Clock
from .advice import FailureKind
from .config import StreamConfig
from .failures import LinkFault, Phase
from .transport import Link, Receiver, Transport
from .websockets_link import WebsocketsTransport

log = logging.getLogger("quantai_tui.stream")


class ConfiguredTransport:
    """Opens each link by the library that `config.transport` names at that moment: a changed setting counts from the next dial.

    "auto" is picows where it can be imported, else websockets. Neither is imported before it is used. `tls` makes the context.
    """

    def __init__(self, tls: Callable[[], ssl.SSLContext], clock: Clock = SYSTEM_CLOCK) -> None:
        self._tls = tls
        self._clock = clock
        self._used: Transport | None = None
        self._fast_is_broken = False

    @property
    def name(self) -> str:
        """The library that was used last; empty before the first dial."""
        return self._used.name if self._used is not None else ""

    async def dial(self, config: StreamConfig, receiver: Receiver, on_phase: Callable[[Phase], None]) -> Link:
        """See `Transport.dial`.

        Raises:
            LinkFault: with kind CONFIG also when picows is asked for and cannot be imported.
        """
        self._used = self._choose(config.transport)
        return await self._used.dial(config, receiver, on_phase)

    def _choose(self, wanted: str) -> Transport:
        if wanted == "picows":
            return self._fast()
        if wanted == "auto" and not self._fast_is_broken and importlib.util.find_spec("picows") is not None:
            try:
                return self._fast()
            except LinkFault as fault:
                self._fast_is_broken = True
                log.warning("using websockets: %s", fault, exc_info=fault)
        return WebsocketsTransport(self._tls, self._clock)

    def _fast(self) -> Transport:
        try:
            from .picows_link import PicowsTransport
        except ImportError as error:
            message = "WS_TRANSPORT is picows, and picows cannot be imported here"
            remedy = "Install it with: pip install 'quantai-tui[fast]'; or set WS_TRANSPORT to auto or websockets."
            raise LinkFault(FailureKind.CONFIG, f"{message}; pip install 'quantai-tui[fast]'", advice=remedy) from error
        return PicowsTransport(self._tls, self._clock)
