"""Break something: the faults that the embedded exchange can play, to choose one from."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..link.messages import Ack, FaultOffer
from .chooser import Choice, Chooser


def fault_names(ack: Ack) -> tuple[tuple[FaultOffer, ...], str]:
    """The faults in the engine's answer, or in words why there are none."""
    if not ack.ok:
        return (), ack.message
    try:
        return msgspec.convert(ack.data, tuple[FaultOffer, ...]), ""
    except msgspec.ValidationError as error:
        return (), f"the engine's answer cannot be read: {error}"


def choose_fault(faults: Sequence[FaultOffer]) -> Chooser:
    """Dismisses with the kind of the chosen fault."""
    choices = [Choice(fault.kind, fault.kind, fault.text) for fault in faults]
    return Chooser("break something", choices, does="breaks it", nothing="no fault has all these words")
