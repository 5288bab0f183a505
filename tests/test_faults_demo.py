"""A fault script as a user plays it: the program without a dashboard, its JSON lines, and what is in its store afterwards."""

from __future__ import annotations

import json
import signal
from typing import Any

from e2e_support import LINUX_ONLY, Stage, stage
from e2e_terminal import wait_until

__all__ = ["stage"]  # a fixture

# Far enough apart for the connection to be there again, since a damaged byte meets open connections alone, and for a line a
# second to tell of each failure.
SCRIPT = """
seed = 7

[[fault]]
at = 0.5
kind = "close"
code = 1012

[[fault]]
at = 4.0
kind = "flip-byte"

[[fault]]
at = 7.5
kind = "hole"
count = 20
"""


@LINUX_ONLY
def test_a_scripted_demo_shows_each_fault_its_advice_and_the_recovery(stage: Stage) -> None:
    script = stage.work / "faults.toml"
    script.write_text(SCRIPT)
    options = ("--set", "TRAIN_AUTOSTART=false", "--set", "WS_RECONNECT_INITIAL_DELAY=0.1")
    program = stage.start("demo", "--faults", str(script), "--headless", "--json", "--for", "60", *options)

    def lines() -> list[dict[str, Any]]:
        whole = (stage.work / "output").read_text().splitlines(keepends=True)
        return [json.loads(line) for line in whole if line.endswith("\n")]

    def over() -> bool:
        stream = lines()[-1]["stream"] if lines() else {}
        (symbol,) = stream.get("symbols", {}).values() or ({},)
        return stream.get("reconnects") == 2 and symbol["repaired"] >= 20 and symbol["missing"] == 0

    wait_until(over, 45.0, lambda: f"both reconnects and the repair; the last line: {lines()[-1:]}")
    program.send_signal(signal.SIGTERM)
    assert program.wait(20) == 0
    stage.assert_nothing_left()
    seen = [line["stream"] for line in lines()]
    errors = {error["kind"]: error["advice"] for stream in seen if (error := stream["last_error"]) is not None}
    assert "in good order" in errors["closed"]
    assert "A TLS record was damaged" in errors["tls_broken"]
    last = seen[-1]
    assert (last["state"], last["ssl_errors"], last["repair_pending"]) == ("live", 1, 0)
    states = [change["state"] for change in last["changes"]]
    assert states[-5:] == ["backoff", "connecting", "handshaking", "subscribing", "live"]
    ids = stage.stored_ids(lines()[-1]["name"])
    assert ids == list(range(ids[0], ids[-1] + 1))
