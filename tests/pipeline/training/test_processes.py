"""Two processes give what one process with the same global batch gives."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.errors import VoxPressError
from pipeline.training.batch_norm import statistics_of_all_processes
from pipeline.training.loop import CHECKPOINT_FILE

# Sums of float32 in another order, over 12 steps. Measured: losses 4e-6 apart (relative), tensors 2e-4 of their largest
# value. With batch-norm statistics of each process by itself the losses are 4e-2 apart.
LOSS_TOLERANCE = 2e-5
TENSOR_TOLERANCE = 1e-3
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


def _start(folder: Path, *, processes: int, die_at: int = -1) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    launcher = TORCHRUN if processes == 2 else ()
    words = ["-m", "tests.pipeline.training.processes_worker", str(folder), str(die_at)]
    return subprocess.run([sys.executable, *launcher, *words], capture_output=True, text=True, timeout=300)


def _train(folder: Path, *, processes: int) -> list[dict[str, Tensor]]:
    done = _start(folder, processes=processes)
    assert done.returncode == 0, done.stderr
    return [load_file(folder / f"rank{rank}.safetensors") for rank in range(processes)]


@pytest.mark.slow
def test_two_processes_train_as_one_does_and_go_on_when_killed(tmp_path: Path) -> None:
    (alone,) = _train(tmp_path / "one", processes=1)
    first, second = _train(tmp_path / "two", processes=2)
    for name in first:  # weights, batch-norm statistics, palettes and history: the same bits in both
        assert torch.equal(first[name], second[name]), name
    assert alone["history"][-1, 0] < 0.7 * alone["history"][0, 0]
    torch.testing.assert_close(first["history"], alone["history"], rtol=LOSS_TOLERANCE, atol=0)
    for name, wanted in alone.items():
        scale = wanted.double().abs().max().clamp_min(1e-3)
        error = float((first[name].double() - wanted.double()).abs().max() / scale)
        assert error <= TENSOR_TOLERANCE, f"{name}: {error:.2g}"

    killed = tmp_path / "killed"
    assert _start(killed, processes=2, die_at=8).returncode != 0
    assert (killed / "work" / CHECKPOINT_FILE).is_file()
    resumed, _ = _train(killed, processes=2)
    for name, wanted in first.items():
        assert torch.equal(resumed[name], wanted), name


def test_halves_are_normalised_as_the_whole_batch(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.pipeline.training.batch_norm_worker"]
    running = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "meeting")], stdout=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    for process in running:
        out, _ = process.communicate(timeout=120)
        assert float(out) < 1e-13


def test_a_batch_norm_of_another_kind_is_refused() -> None:
    network = nn.Sequential(nn.BatchNorm3d(3))
    with pytest.raises(VoxPressError, match="BatchNorm3d cannot be trained"), statistics_of_all_processes(network, 2):
        pass
    with statistics_of_all_processes(network, 1):
        pass


def test_batch_norms_are_plain_again_afterwards() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm1d(3))
    with statistics_of_all_processes(network, 2):
        assert type(network[0]) is not nn.BatchNorm2d
    assert [type(norm) for norm in network] == [nn.BatchNorm2d, nn.BatchNorm1d]
