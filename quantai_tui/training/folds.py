"""Where to train and where to validate: walk-forward folds with an embargo. Positions are those of a sample's newest bar."""

from __future__ import annotations

from dataclasses import dataclass

_VALIDATION_PART = 0.2


@dataclass(frozen=True, slots=True)
class Fold:
    """Samples to train on and later ones to validate on, neither of them empty.

    A sample at t sees the bars t - window + 1 to t (and, for the first return, the close of t - window), and its label the
    closes of t and t + horizon. Between the two parts lie window + horizon samples that are in neither: no bar that a training
    label has seen is in a window of the validation part (Lopez de Prado, "Advances in Financial Machine Learning", 2018, chapter
    7, calls it an embargo).
    """

    train: range
    validation: range


def walk_forward(n_bars: int, window: int, horizon: int, folds: int = 1, not_before: int = 0) -> tuple[Fold, ...]:
    """`folds` folds over the newest bars: each validates on what follows the one before, and trains on all before that.

    The last one validates on the newest 20 % of the samples, or 1 / (folds + 1) where that is less, and the others on parts as
    long. It begins at `not_before` where that is later, unless no sample is left from there on; the folds before it stay.

    Raises ValueError when a fold would have nothing to train or nothing to validate on.
    """
    if folds < 1:
        raise ValueError(f"folds must be at least 1, got {folds}")
    samples = n_bars - window - horizon
    share = min(_VALIDATION_PART, 1 / (folds + 1))
    stop = window + max(samples, 0)
    edges = [window + int(samples * (1 - share * left)) for left in range(folds, 0, -1)]
    if not_before < stop:
        edges[-1] = max(edges[-1], not_before)
    found = tuple(
        Fold(range(window, first - window - horizon), range(first, end))
        for first, end in zip(edges, [*edges[1:], stop], strict=True)
    )
    for fold in found:
        if not fold.train or not fold.validation:
            among = f" in {folds} folds" if folds > 1 else ""
            raise ValueError(f"{n_bars} bars are too few for a window of {window} and a horizon of {horizon} bars{among}")
    return found
