"""No kind of fault without a test of what it does to the stream."""

from __future__ import annotations

from pathlib import Path

from quantai_tui.exchange.catalogue import FAULTS

BY_CHANCE = frozenset({"test_faults_soak.py", "test_faults_complete.py"})


def test_every_kind_in_the_catalogue_is_injected_by_name() -> None:
    files = [path for path in Path(__file__).parent.glob("test_faults_*.py") if path.name not in BY_CHANCE]
    text = "\n".join(path.read_text() for path in files)
    assert [kind for kind in FAULTS if f'"{kind}"' not in text] == []
