"""Why a step overflowed, in words: one table for the screen, the alerts and the manual."""

from __future__ import annotations

from msgspec import Struct


class CauseWords(Struct, frozen=True):
    """`name` is what the screen says, `brief` (37 characters at most) stands behind its count; the others are the manual's."""

    name: str
    brief: str
    meaning: str
    remedy: str


OVERFLOW_CAUSES: dict[str, CauseWords] = {
    "scale": CauseWords(
        "scale too high",
        "finite at a smaller scale",
        "The gradients are finite at a smaller scale",
        "Nothing: it backs off by itself, and one such step now and then is how the scale finds its place",
    ),
    "data": CauseWords(
        "input not finite",
        "NaN or Inf in the batch's features",
        "NaN or Inf among the features of this batch, at whatever scale",
        "Look at the data of that step: a bar or a feature that divides by zero",
    ),
    "target": CauseWords(
        "target or loss",
        "output finite, loss not",
        "The model's output is finite and the loss is not",
        "Look at the targets, and for a logarithm or a division at 0 in the loss",
    ),
    "forward": CauseWords(
        "forward pass",
        "a layer passes 65,504, or bad weights",
        "A layer's output passes 65,504, where fp16 ends, or its weights are not finite",
        "Normalise what goes into the layer that is named, take `TRAIN_PRECISION=bf16`, or go back to a checkpoint",
    ),
    "gradient": CauseWords(
        "gradient itself",
        "loss finite, gradient not",
        "The loss is finite and its gradient is not, at every scale",
        "Look for a square root, a logarithm or a division at 0 behind the parameter that is named",
    ),
}
"""Keyed by the `cause` of an `OverflowSnapshot`, in the order in which the screen counts them."""


def cause_name(cause: str) -> str:
    """What the screen says for a cause; one that this version does not know is said as it is."""
    known = OVERFLOW_CAUSES.get(cause)
    return known.name if known is not None else cause
