"""What a line can be like: slow, narrow, held up, or a hole. `passage.Passage` asks them before it passes bytes on."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

NEVER = math.inf

_SHARE_S = 0.05  # a throttled line passes this much of a second's bytes at a time: smooth, and few wake-ups


class Condition:
    """An undisturbed line; what is wrong is said by overriding. Times are monotonic seconds."""

    swallows = False
    """Bytes of both directions vanish. For good: what was lost is lost, even when the line is mended."""
    holds_application = False
    """What the client's application says is held; the TLS handshake passes."""

    def delay_s(self) -> float:
        """How much later the bytes that were just read may go on."""
        return 0.0

    def hold_s(self, now: float) -> float:
        """For how long nothing may pass now; NEVER for as long as the condition lasts."""
        return 0.0

    def share(self, wanted: int, now: float, downwards: bool) -> tuple[int, float]:
        """How many of `wanted` bytes may go on next, at least one, and in how many seconds. Counts them as gone."""
        return wanted, 0.0


class BlackHole(Condition):
    swallows = True


class StalledTls(Condition):
    """The connection is accepted and nothing is answered."""

    def hold_s(self, now: float) -> float:
        return NEVER


class StalledUpgrade(Condition):
    holds_application = True


@dataclass(eq=False)
class Latency(Condition):
    """Each way, uniform in `mean_s` plus or minus `jitter_s`; the order is kept by whoever asks."""

    mean_s: float
    jitter_s: float
    rng: random.Random

    def delay_s(self) -> float:
        return max(0.0, self.mean_s + self.jitter_s * self.rng.uniform(-1.0, 1.0))


@dataclass(eq=False)
class Stutter(Condition):
    """Frozen for `freeze_s` at the beginning of every `every_s`, from `began` on."""

    freeze_s: float
    every_s: float
    began: float

    def hold_s(self, now: float) -> float:
        return max(0.0, self.freeze_s - (now - self.began) % self.every_s)


@dataclass(eq=False)
class Throttle(Condition):
    """`bytes_per_s` each way, for all connections on the line together."""

    bytes_per_s: float
    _free_at: dict[bool, float] = field(default_factory=dict)

    def share(self, wanted: int, now: float, downwards: bool) -> tuple[int, float]:
        count = min(wanted, max(1, int(self.bytes_per_s * _SHARE_S)))
        start = max(now, self._free_at.get(downwards, now))
        self._free_at[downwards] = start + count / self.bytes_per_s
        return count, start - now
