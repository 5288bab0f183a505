"""What the words, abbreviations and signs on the panes mean. A test holds it against the labels that the panes draw."""

from __future__ import annotations

WORDS: tuple[tuple[str, str], ...] = (
    ("rtt", "round-trip time of our own ping to the venue"),
    ("p50, p95", "half of them are shorter, and 95 of 100 are (percentiles)"),
    ("lag", "how late the engine's loop, or its store, comes to its work"),
    ("tls", "version of the encryption; certificate: days it still holds"),
    ("pid", "number of the process, as ps and kill know it"),
    ("utc", "the time zone of the clock beside it"),
    ("whole", "every trade id up to the last one is stored"),
    ("missing", "ids that exist and have not arrived; they are fetched again"),
    ("whole to", "the id up to which none is missing; training reads no further"),
    ("silent", "acknowledged by the venue, which then sends nothing of it"),
    ("bad", "messages that were not understood; z on connection shows them"),
    ("dials left", "new connections that the venue's limit still allows"),
    ("dials", "attempts to connect"),
    ("ssl errors", "connections that failed at the encryption (TLS)"),
    ("avg", "average"),
    ("min", "shortest of those that are shown"),
    ("lr", "learning rate"),
    ("grad", "norm of the gradient, before it is clipped"),
    ("k, M, G", "thousands, millions, thousands of millions"),
    ("gpu", "graphics card"),
    ("headroom", "octaves left until the largest recent gradient would overflow"),
    ("underflow", "share of the gradient too small for fp16 at this scale"),
    ("maj", "accuracy of always saying what is most frequent (majority)"),
    ("pers", "accuracy of saying that the last move goes on (persistence)"),
    ("logit", "accuracy of logistic regression on the same windows (logistic)"),
    ("p", "chance that the lead over the best is luck; counts below 0.05"),
    ("ece", "expected calibration error: how far the probabilities are off"),
    ("by itself", "training has paused because resets did not help; space goes on"),
    ("▶ gpu", "our training runs on it; ecc: its uncorrected memory errors"),
    ("◆ rank", "it holds the others up: each step waits for the slowest"),
    ("STALE", "nothing new from the engine for so long; old numbers are grey"),
    ("–", "not known yet"),  # noqa: RUF001 (the sign that the panes show)
)
