"""Where the loss scale starts and between which bounds it may move."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from quantai_tui.training import DynamicGradScalerConfig


@pytest.mark.parametrize(
    ("parameters", "scale"),
    [(0, 2**16), (999_999, 2**16), (1_000_000, 2**14), (10_000_000, 2**14), (10_000_001, 2**12), (7 * 10**9, 2**12)],
)
def test_initial_scale_follows_the_parameter_count(parameters: int, scale: float) -> None:
    config = DynamicGradScalerConfig(parameters)
    assert config.calculate_init_scale(parameters) == config.init_scale == scale
    assert config.create_scaler("cpu").get_scale() == scale


def test_initial_scale_is_clamped_to_cap_and_floor() -> None:
    assert DynamicGradScalerConfig(1000, max_scale=1000.0).init_scale == 1000.0
    assert DynamicGradScalerConfig(10**9, min_scale=8192.0).init_scale == 8192.0


def test_cap_and_floor_that_are_no_fp32_numbers_are_rounded_inwards() -> None:
    config = DynamicGradScalerConfig(1000, max_scale=65535.9999999, min_scale=1.0000000001)
    assert np.float32(config.cap) == config.cap <= 65535.9999999
    assert np.float32(config.floor) == config.floor >= 1.0000000001
    assert config.create_scaler("cpu").get_scale() <= 65535.9999999


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"growth_factor": 1.0}, "growth_factor"),
        ({"growth_factor": math.inf}, "growth_factor"),
        ({"growth_interval": 0}, "growth_interval"),
        ({"max_scale": math.nan}, "max_scale"),
        ({"max_scale": -1.0}, "max_scale"),
        ({"max_scale": 0.5}, "min_scale must not exceed max_scale"),
        ({"min_scale": 0.0}, "min_scale"),
        ({"min_scale": 2.0**-127}, "min_scale"),
        ({"backoff_factor": 1.0}, "backoff_factor"),
        ({"backoff_factor": 0.0}, "backoff_factor"),
    ],
)
def test_a_wrong_number_is_named_with_its_rule(wrong: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DynamicGradScalerConfig(1000, **wrong)  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_scaler_for_cuda_is_refused_where_there_is_none() -> None:
    with pytest.raises(ValueError, match="no usable CUDA device"):
        DynamicGradScalerConfig(1000).create_scaler("cuda")
