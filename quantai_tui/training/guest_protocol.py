"""What a watched script and an engine say to each other, in the frames of `messages`. Free of torch.

The script says `GuestHello`, the engine `Welcome` or `Refused`. A guest then sends `Ready` and reports as a worker does; of the
controls it is sent `RESET_SCALER` only. The socket lies in the user's private folder: who reaches it is the user, so no token.
`GuestHello`, `Welcome` and `Refused` are maps and stay readable for other releases; the rest is packed by position, so both must
be of the same release.
"""

from __future__ import annotations

import msgspec

from .messages import Ack, Control, EpochDone, Event, Failed, Finished, Metrics, Overflowed, Ready

LONGEST_NAME = 64


class GuestHello(msgspec.Struct, frozen=True, tag="guest"):
    release: str
    name: str
    pid: int


class Welcome(msgspec.Struct, frozen=True, tag="welcome"):
    pass


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """Also said later, to a guest whose place is needed. The text is for the script's log."""

    text: str


EngineWord = Welcome | Refused | Control
GuestReport = Ready | Metrics | EpochDone | Event | Overflowed | Ack | Finished | Failed
