from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from exporters.frontend_error import FrontEnd, main
from pipeline.features.fbank import fbank, features
from pipeline.features.spec import FrontEndSpec
from tests.factories import speech_like


def test_it_is_the_front_end_of_the_kernels() -> None:
    spec = FrontEndSpec(window="povey", num_mel_bins=40)
    for mean_normalise, reference in ((False, fbank), (True, features)):
        found = FrontEnd(spec, mean_normalise=mean_normalise)(speech_like(1.0))
        np.testing.assert_array_equal(found, reference(speech_like(1.0), spec))


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--audio", str(tmp_path)]) == 2
    assert "expected recordings (.wav or .flac), found none" in capsys.readouterr().err
    for seed in range(3):
        soundfile.write(tmp_path / f"{seed}.wav", speech_like(1.0, seed=seed), 16000, subtype="PCM_16")
    assert main(["--audio", str(tmp_path), "--limit", "3"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["recordings"], found["over_1e-3"]) == (3, 0)
    assert found["values"] > 2 * 3 * 98 * 80
    assert (found["different"], found["largest"]) == (0, 0.0)
