"""Which symbols the present link may not deliver, and when to check with another connection."""

from __future__ import annotations

from collections.abc import Sequence

from .liveness import Liveness
from .overlap import Occasion
from .silence import SilenceLooks


class Suspicion:
    """Combines the usual silence of a symbol (`Liveness`) and REST's view of it (`SilenceLooks`)."""

    def __init__(self, liveness: Liveness, looks: SilenceLooks) -> None:
        self._liveness = liveness
        self._looks = looks

    def unexplained(self) -> list[str]:
        """The suspects, without unserved symbols that were probed lately."""
        suspects = self._suspects()
        return [symbol for symbol in suspects if self._looks.may_probe(symbol) or not self._looks.is_unserved(symbol)]

    def occasion(self) -> Occasion | None:
        """A second connection for suspects without a recent one; REST is asked about them as well."""
        due = [symbol for symbol in self._suspects() if self._looks.may_probe(symbol)]
        if not due:
            return None
        why = self._why(due)
        self._looks.suspect(due, f"the link had stalled: {why}")
        return Occasion(why, tuple(due))

    def _suspects(self) -> list[str]:
        """Apply REST's findings first."""
        for symbol in self._looks.excused():
            self._liveness.excuse(symbol)  # two links and REST agree: the market is quiet
        for symbol in self._looks.unserved():
            self._liveness.accuse(symbol)
        return self._liveness.suspects()

    def _why(self, suspects: Sequence[str]) -> str:
        symbol = max(suspects, key=lambda name: self._liveness.silent_s(name) or 0.0)
        more = f" and {len(suspects) - 1} more" if len(suspects) > 1 else ""
        silent, usual = self._liveness.silent_s(symbol) or 0.0, self._liveness.limit_s(symbol) or 0.0
        return f"no {symbol} trade{more} for {silent:.0f} s, usually never more than {usual:.0f} s"
