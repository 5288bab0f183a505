"""The kernel's files about temperatures, as several machines have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantai_tui.training.heat import ProcessorHeat


def chip(root: Path, number: int, name: str, **files: str) -> None:
    folder = root / f"hwmon{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    for file, text in files.items():
        (folder / file).write_text(f"{text}\n")


def test_of_an_intel_machine_with_two_sockets_the_hotter_package_counts_and_no_disk(tmp_path: Path) -> None:
    chip(tmp_path, 0, "nvme", temp1_input="83850", temp1_label="Composite")
    chip(tmp_path, 1, "coretemp", temp1_input="52000", temp1_label="Package id 0", temp2_input="90000", temp2_label="Core 0")
    chip(tmp_path, 2, "coretemp", temp1_input="61500", temp1_label="Package id 1")
    assert ProcessorHeat(tmp_path).celsius() == 61.5


def test_amd_and_arm_name_theirs_otherwise(tmp_path: Path) -> None:
    chip(tmp_path / "amd", 3, "k10temp", temp1_input="48250", temp1_label="Tctl", temp3_input="70000", temp3_label="Tccd1")
    assert ProcessorHeat(tmp_path / "amd").celsius() == 48.25
    chip(tmp_path / "arm", 0, "cpu_thermal", temp1_input="39000")
    assert ProcessorHeat(tmp_path / "arm").celsius() == 39.0


@pytest.mark.parametrize("said", ["", "hot"])
def test_a_sensor_that_tells_nothing_is_not_taken_for_a_cold_one(tmp_path: Path, said: str) -> None:
    chip(tmp_path, 0, "coretemp", temp1_input=said, temp1_label="Package id 0")
    assert ProcessorHeat(tmp_path).celsius() is None


def test_a_machine_without_sensors_says_so(tmp_path: Path) -> None:
    assert ProcessorHeat(tmp_path / "nothing").celsius() is None
