"""Every abbreviation that a pane shows is explained in the help."""

from __future__ import annotations

import re

from ui_stories import banned_snapshot
from ui_support import NOW, backoff_snapshot, engine_snapshot
from ui_training_stories import explained_snapshot, many_ranks_snapshot, paused_snapshot

from quantai_tui.link.base import LinkState
from quantai_tui.ui.glossary import WORDS
from quantai_tui.ui.panes import PANES
from quantai_tui.ui.view import View

# Words of up to five letters that need no explaining, and the signs of units.
_PLAIN = """
a ago all and bars by cap cause clock done down epoch every floor for from gaps high host in input is last log loop loss low mean
more ms new newer next no none not now of ok old on or over ranks row s scale seen shows since so step steps store the time to
too total until up wait with yet
"""
_SNAPSHOTS = {
    "live": engine_snapshot,
    "backoff": backoff_snapshot,
    "banned": banned_snapshot,
    "explained": explained_snapshot,
    "paused": paused_snapshot,
    "many ranks": many_ranks_snapshot,
}


def test_every_abbreviation_on_the_panes_is_in_the_help() -> None:
    """Short words of labels. What this finds belongs into ui/glossary.py, or, if it is plain English, into the list above."""
    explained = set(re.findall(r"[a-z0-9]+", " ".join(word for word, _ in WORDS).lower()))
    known = explained | set(_PLAIN.split())
    missing: dict[str, str] = {}
    for story, make in _SNAPSHOTS.items():
        view = View(make(), LinkState.ATTACHED, name="live-spot", age_s=0.1, now=NOW)
        for spec in PANES:
            for width, height in ((36, 6), (58, 12), (118, 36), (198, 45)):
                for label in (text for row in spec.draw(view, width, height) for text, token in row.spans if token == "muted"):
                    if len(label.split()) > 3 or "…" in label:  # a sentence, or cut
                        continue
                    for word in re.findall(r"(?<![\w.-])[a-z][a-z0-9]{0,4}(?![\w.-])", label):
                        if word not in known:
                            missing.setdefault(word, f"{word!r} in {label.strip()!r} on {spec.id} ({story})")
    assert not missing, "not in the help:\n" + "\n".join(missing.values())


def test_no_word_of_the_glossary_is_there_twice_and_each_line_fits_80_columns() -> None:
    words = [word for word, _ in WORDS]
    assert len(set(words)) == len(words)
    assert [word for word, meaning in WORDS if len(word) > 10 or len(meaning) > 63] == []
