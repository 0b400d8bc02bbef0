from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from exporters.frontend import fbank_numbers
from exporters.pte.fbank_op import fbank
from pipeline.errors import InputError
from pipeline.features.fbank import features
from pipeline.features.spec import FrontEndSpec
from tests.factories import speech_like


@pytest.mark.parametrize(
    "spec",
    [
        FrontEndSpec(),
        FrontEndSpec(window="povey", num_mel_bins=40, low_hz=60.0, high_hz=-200),
        FrontEndSpec(window="hanning", round_to_power_of_two=False, num_mel_bins=40, preemphasis=0.0),
        FrontEndSpec(use_power=False, remove_dc_offset=False, num_mel_bins=40),
    ],
    ids=["default", "povey", "fft400", "magnitude"],
)
def test_the_eager_op_is_the_front_end(spec: FrontEndSpec) -> None:
    samples = np.stack([speech_like(0.6, seed=seed) for seed in range(2)])
    found = fbank(torch.from_numpy(samples), fbank_numbers(spec)).numpy()
    for row, one in zip(samples, found, strict=True):
        np.testing.assert_allclose(one, features(row, spec), atol=1e-3)


def test_tracing_knows_the_shape() -> None:
    with FakeTensorMode():
        traced = fbank(torch.zeros(3, 16000), fbank_numbers(FrontEndSpec()))
    assert traced.shape == (3, 98, 80)


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(InputError, match="op version 1, found 2"):
        torch.ops.voxpress.fbank(torch.zeros(1, 16000), 16000, 400, 160, 80, 1.0, 0.97, 20.0, 8000.0, 0, 31, 2)
