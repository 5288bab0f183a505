"""An operator records a running engine, and the recording is lived through again by the whole program."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from e2e_support import LINUX_ONLY, Stage, stage, watch

from quantai_tui.engine.places import EngineFolder

__all__ = ["stage"]  # a fixture

pytestmark = LINUX_ONLY


@pytest.mark.timeout(120)
def test_a_stream_is_recorded_on_demand_and_replayed_to_the_last_trade(stage: Stage) -> None:
    stage.start("serve", "demo", "--set", "TRAIN_AUTOSTART=false")
    entry = stage.entry()
    watch(entry, lambda snapshot: snapshot.stream.symbols["ETHUSDT"].stored > 5)

    begun = stage.run("record", "--max-mb", "5")
    assert (begun.returncode, begun.stderr) == (0, "")
    path = Path(re.search(r"recording into (\S+\.qrec), 5 MB at most", begun.stdout)[1])
    assert path.parent == stage.folder("demo-7") / "recordings"
    assert "quantai-tui record demo-7 --stop" in begun.stdout
    assert "recording already" in stage.run("record").stderr
    seen = watch(entry, lambda snapshot: snapshot.stream.recording and snapshot.stream.recording.frames > 50)
    assert seen.stream.recording.path == str(path)

    done = stage.run("record", "demo-7", "--stop")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"replay it with: quantai-tui replay {path}" in done.stdout
    frames = int(re.search(r"(\d+) messages", done.stdout)[1])
    assert "nothing is being recorded" in stage.run("record", "--stop").stderr
    assert stage.run("stop").returncode == 0

    disguised = stage.work / "outage.csv"  # known by its content, whatever its name
    disguised.write_bytes(path.read_bytes())
    replayed = stage.run("replay", str(disguised), "--headless", "--json")
    assert (replayed.returncode, replayed.stderr) == (0, "")
    last = json.loads(replayed.stdout.splitlines()[-1])
    assert (last["mode"], last["finished"], last["replay_progress"]) == ("replay", True, 1.0)
    assert last["stream"]["symbols"]["ETHUSDT"]["missing"] == 0
    ids = stage.stored_ids(last["name"])
    assert re.fullmatch(r"replay-[0-9a-f]{12}", last["name"])
    assert frames - 5 <= len(ids) <= frames
    assert ids == list(range(ids[0], ids[-1] + 1))
    assert set(ids) <= set(stage.stored_ids("demo-7"))

    stage.assert_nothing_left()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.qrec", None, "there is no such file"),
        ("prices.qrec", b"1,2,3\n", "is not a recording; make one with 'quantai-tui record'"),
        ("newer.qrec", b"\x89QREC\r\n\x1a\x00\x09\x00\x00\x00\x00", "version 9, this program reads 1"),
    ],
)
def test_a_file_that_cannot_be_replayed_is_refused_in_words(stage: Stage, name: str, content: bytes | None, says: str) -> None:
    file = stage.work / name
    if content is not None:
        file.write_bytes(content)
    refused = stage.run("replay", str(file), "--headless")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("quantai-tui: ")
    assert name in refused.stderr
    assert says in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_fresh_start_forgets_what_was_stored_and_not_what_was_recorded(tmp_path: Path) -> None:
    folder = EngineFolder(tmp_path / "demo-7")
    folder.prepare()
    folder.store.touch()
    first = folder.new_recording(1_700_000_000.0)
    first.write_text("kept")
    second = folder.new_recording(1_700_000_000.0)
    assert (first.name, second.name) == ("20231114T221320Z.qrec", "20231114T221320Z-1.qrec")
    folder.clear()
    assert [path.name for path in folder.path.rglob("*")] == ["recordings", first.name]


def test_without_an_engine_there_is_nothing_to_record(stage: Stage) -> None:
    refused = stage.run("record")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "no engine runs" in refused.stderr
