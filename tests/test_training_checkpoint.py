"""Checkpoints as files: whole or not there, never a danger, never too many."""

from __future__ import annotations

import os
import pickle
import resource
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from quantai_tui.telemetry import Severity
from quantai_tui.training.checkpoint import CheckpointError, CheckpointFolder, random_state, snapshot

OF: dict[str, Any] = {"model_size": "tiny", "symbol": "ETHUSDT", "features": ["log return"], "shapes": "ab"}


def state(step: int) -> dict[str, Any]:
    weights = torch.full((1000,), float(step))
    return {"stepper": {"model": {"w": weights}}, "loop": {"epoch": step}, "rng": random_state()}


class Told:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, level: Severity, text: str) -> None:
        self.texts.append(text)


def write(folder: CheckpointFolder, step: int, *, best: bool = False, keep: int = 3) -> Path:
    return folder.write(state(step), step, 0.0, best=best, keep=keep)


def steps(path: Path) -> list[int]:
    return sorted(int(found.stem.split("-step-")[1].removesuffix("-best")) for found in path.glob("*.pt"))


def test_what_was_written_is_read_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "deep" / "down", OF)
    path = write(folder, 7)
    assert path.name.endswith("-00000001-step-7.pt")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = next(folder.newest_first(Told()), None)
    assert found is not None
    assert found[0] == path
    assert (found[1]["step"], found[1]["loop"]) == (7, {"epoch": 7})
    assert torch.equal(found[1]["stepper"]["model"]["w"], torch.full((1000,), 7.0))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(torch.full((4,), 2.0).numpy().tobytes()) + 100  # in a weight, where torch itself would not notice
    data[at] ^= 1
    path.write_bytes(data)


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("sprung",)


def trapped(path: Path) -> None:
    torch.save({**torch.load(path, weights_only=True), "loop": Trap()}, path)


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"version": 1}))


def of_the_future(path: Path) -> None:
    torch.save({**torch.load(path, weights_only=True), "version": 2}, path)


def of_another(path: Path) -> None:
    torch.save({**torch.load(path, weights_only=True), "fingerprint": {**OF, "symbol": "BTCUSDT", "shapes": "cd"}}, path)


def lacking(path: Path) -> None:
    whole = torch.load(path, weights_only=True)
    del whole["rng"]
    torch.save(whole, path)


def packed_small(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (packed_small, "it is compressed"),
        (cut, "it is broken: "),
        (emptied, "it is broken: "),
        (flipped, "does not match its checksum"),
        (trapped, "it is broken: "),
        (pickled, "it is broken: "),
        (of_the_future, "it is of version 2, this release reads version 1"),
        (of_another, "it is of another symbol, shapes"),
        (lacking, "its part 'rng' is missing"),
    ],
)
def test_one_that_cannot_be_used_is_skipped_with_a_message_for_the_one_before(
    spoil: Callable[[Path], None], why: str, tmp_path: Path
) -> None:
    folder = CheckpointFolder(tmp_path, OF)
    good, bad = write(folder, 1), write(folder, 2)
    spoil(bad)
    told = Told()
    found = next(folder.newest_first(told), None)
    assert found is not None
    assert found[0] == good
    (text,) = told.texts
    assert text.startswith(f"checkpoint {bad.name} is skipped: ")
    assert why in text
    assert not Path("sprung").exists()
    # The next one is the newest again.
    assert write(folder, 2) == next(folder.newest_first(told))[0]


def test_where_none_can_be_used_training_begins_anew_and_says_so(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, OF)
    assert list(folder.newest_first(told := Told())) == []
    assert told.texts == []
    cut(write(folder, 1))
    assert list(folder.newest_first(told)) == []
    assert told.texts[-1] == "no checkpoint could be used: training begins anew"
    assert list(CheckpointFolder(tmp_path, {**OF, "symbol": "BTCUSDT"}).newest_first(told := Told())) == []
    assert told.texts[0].startswith("no checkpoint of this model, symbol and interval: training begins anew (tiny-")


def test_what_a_killed_writer_has_left_is_removed(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, OF)
    path = write(folder, 1)
    left = path.with_name(path.name.replace("step-1", "step-2") + ".unfinished")
    left.write_bytes(path.read_bytes()[:500])
    stranger = tmp_path / "notes.txt"
    stranger.write_text("mine")
    found = next(folder.newest_first(Told()), None)
    assert found is not None
    assert found[0] == path
    assert not left.exists()
    assert stranger.exists()


def test_a_disk_that_is_full_leaves_nothing_behind_and_harms_nothing(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, OF)
    path = write(folder, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write(folder, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.glob("*.pt*")) == [path]
    assert next(folder.newest_first(Told()))[0] == path


def test_the_newest_few_and_the_best_are_kept(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, OF)
    write(folder, 10, best=True)
    write(folder, 20, best=True)
    for step in (30, 40, 50, 60, 70):
        write(folder, step)
    assert steps(tmp_path) == [20, 50, 60, 70]
    write(folder, 80, keep=1)
    assert steps(tmp_path) == [20, 80]


def test_steps_that_go_back_are_newer_all_the_same(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, OF)
    write(folder, 900, keep=1)
    path = write(folder, 5, keep=1)
    assert steps(tmp_path) == [5]
    assert next(folder.newest_first(Told()))[0] == path


def test_files_of_other_models_stay_beside_and_are_gone_back_to_but_not_without_end(tmp_path: Path) -> None:
    others = [CheckpointFolder(tmp_path, {**OF, "symbol": f"X{number}"}) for number in range(7)]
    for number, folder in enumerate(others):
        write(folder, number)
    assert steps(tmp_path) == [2, 3, 4, 5, 6]
    found = next(others[3].newest_first(Told()), None)
    assert found is not None
    assert found[1]["step"] == 3


def test_a_snapshot_shares_no_memory_with_what_goes_on() -> None:
    weights = torch.zeros(3)
    taken = snapshot({"a": [weights, (1, 2.5)], "b": None})
    weights.fill_(1.0)
    assert torch.equal(taken["a"][0], torch.zeros(3))
    assert taken["a"][1] == [1, 2.5]


def test_a_single_file_is_refused_by_name_of_the_reason(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, OF)
    with pytest.raises(CheckpointError, match="No such file"):
        folder.load(tmp_path / "gone.pt")
