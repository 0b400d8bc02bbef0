import itertools
import os
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from pipeline.errors import InputError, VoxPressError
from pipeline.models.registry import build_model
from pipeline.models.spec import ModelSpec
from pipeline.progress import Progress
from pipeline.quantize.apply import attach_palettes, follow_weights, weight_layers
from pipeline.training.aam import AamSoftmax
from pipeline.training.crops import CropDataset, StepSampler
from pipeline.training.loop import CHECKPOINT_FILE, train
from pipeline.training.settings import TrainingSettings
from tests.pipeline.training.noise import SPEAKERS, Noise

SETTINGS = TrainingSettings(steps=6, batch=4, crop_frames=32, lr=0.05, precision="32-true")
ALWAYS_SAVE = {"checkpoint_seconds": 1e-6}
QUIET = Progress(Console(file=open(os.devnull, "w"), force_terminal=False))  # noqa: SIM115 - lives as long as the tests


def _data() -> CropDataset:
    return CropDataset(Noise(), SPEAKERS, 32, seed=3)  # type: ignore[arg-type]


def _parts(bits: int | None = None) -> tuple[nn.Module, AamSoftmax]:
    torch.manual_seed(0)
    network = build_model(ModelSpec(architecture="resnet10", base_channels=2, embedding_dim=8))
    head = AamSoftmax(8, 3, 16.0)
    if bits:
        attach_palettes(network, dict.fromkeys(weight_layers(network), bits))
    return network, head


def _train(work: Path, *, bits: int | None = None, die_at: int | None = None, identity: str = "", **changes: object):
    network, head = _parts(bits)

    def every_step(step: int) -> None:
        follow_weights(network)
        if step == die_at:
            raise KeyboardInterrupt

    history = train(
        network, head, _data(), SETTINGS.model_copy(update=changes), work=work, seed=1, label="t", progress=QUIET,
        identity=identity, every_step=every_step,
    )  # fmt: skip
    return network, history


def _same(one: nn.Module, two: nn.Module) -> None:
    for (name, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(("bits", "ema_decay"), [(None, 0.0), (2, 0.0), (None, 0.5), (2, 0.5)])
def test_a_killed_run_ends_where_an_uninterrupted_one_does(
    tmp_path: Path, bits: int | None, ema_decay: float, frozen: bool
) -> None:
    same: dict[str, object] = {"bits": bits, "ema_decay": ema_decay, "frozen_statistics": frozen}
    whole, history = _train(tmp_path / "whole", **same)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "killed", die_at=3, **same, **ALWAYS_SAVE)  # type: ignore[arg-type]
    assert (tmp_path / "killed" / CHECKPOINT_FILE).is_file()
    resumed, again = _train(tmp_path / "killed", **same, **ALWAYS_SAVE)  # type: ignore[arg-type]
    _same(whole, resumed)
    assert again == history


def test_the_average_of_the_weights_after_every_step(tmp_path: Path) -> None:
    # The rate is constant, so a short run is the beginning of a longer one.
    runs = [_train(tmp_path / str(steps), steps=steps, lr=0.05, final_lr=0.05)[0] for steps in (1, 2, 3)]
    weights = [run.state_dict() for run in runs]
    averaged, _ = _train(tmp_path / "average", steps=3, lr=0.05, final_lr=0.05, ema_decay=0.2)
    assert averaged.training is False
    for name, value in averaged.state_dict().items():
        one, two, three = (state[name].double() for state in weights)
        # decays 2/11 and, since 3/12 is more, 0.2
        wanted = 0.2 * (2 / 11 * one + 9 / 11 * two) + 0.8 * three if value.is_floating_point() else three
        torch.testing.assert_close(value.double(), wanted, rtol=1e-5, atol=1e-6)


def test_frozen_statistics_are_kept_and_normalised_by(tmp_path: Path) -> None:
    fresh, _ = _parts()
    kept = {name: value for name, value in fresh.state_dict().items() if "running" in name or "tracked" in name}
    assert kept
    # lr so small that the weights stay: the loss of a step is then that of the network as it is run.
    frozen, history = _train(tmp_path / "frozen", steps=1, lr=1e-12, final_lr=1e-12, frozen_statistics=True)
    for name, value in kept.items():
        assert torch.equal(frozen.state_dict()[name], value), name
    network, head = _parts()
    crops = [_data()[k] for k in range(SETTINGS.batch)]
    features = torch.stack([crop for crop, _ in crops])
    with torch.no_grad():
        loss, _ = head(network.eval()(features), torch.tensor([label for _, label in crops]), SETTINGS.margin)
    assert history[0]["loss"] == pytest.approx(float(loss), rel=1e-5)
    moved, _ = _train(tmp_path / "moved", steps=1, lr=1e-12, final_lr=1e-12)
    assert any(not torch.equal(moved.state_dict()[name], value) for name, value in kept.items())


def test_a_checkpoint_of_other_settings_is_not_continued(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "w", die_at=3, **ALWAYS_SAVE)
    other, _ = _train(tmp_path / "w", lr=0.01, **ALWAYS_SAVE)
    fresh, _ = _train(tmp_path / "f", lr=0.01)
    _same(other, fresh)


def test_a_checkpoint_of_another_job_is_not_continued(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "w", die_at=3, bits=2, identity="one", **ALWAYS_SAVE)
    with pytest.raises(KeyboardInterrupt):  # goes through step 2 again, so it began anew
        _train(tmp_path / "w", die_at=2, bits=2, identity="two", **ALWAYS_SAVE)
    _train(tmp_path / "w", die_at=1, bits=2, identity="two", **ALWAYS_SAVE)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"checkpoint.pt: expected a training checkpoint \(delete it"):
        _train(tmp_path)


def test_training_learns(tmp_path: Path) -> None:
    _, history = _train(tmp_path, steps=60, batch=6, lr=0.1, final_lr=0.01, margin=0.0)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]


def test_distillation_pulls_towards_the_teacher(tmp_path: Path) -> None:
    torch.manual_seed(9)
    teacher = build_model(ModelSpec(architecture="resnet10", base_channels=2, embedding_dim=8)).eval()

    def distance(weight: float) -> float:
        network, head = _parts()
        settings = SETTINGS.model_copy(update={"steps": 30, "batch": 6, "distillation": weight, "lr": 0.05})
        train(
            network,
            head,
            _data(),
            settings,
            work=tmp_path / str(weight),
            seed=1,
            label="t",
            progress=QUIET,
            teacher=teacher,
        )
        x = torch.stack([_data()[k][0] for k in range(12)])
        with torch.no_grad():
            return float(1 - nn.functional.cosine_similarity(network(x), teacher(x)).mean())

    assert distance(20.0) < 0.5 * distance(0.0)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(VoxPressError, match="the loss is nan at step"):
        _train(tmp_path, lr=1e30, final_lr=1e30, steps=11)


def test_no_steps_change_nothing(tmp_path: Path) -> None:
    network, history = _train(tmp_path, steps=0)
    _same(network, _parts()[0])
    assert history == []


def test_crops_are_a_function_of_the_sample_number() -> None:
    one, two = _data(), _data()
    for k in (0, 7, 100):
        assert torch.equal(one[k][0], two[k][0])
        assert one[k][0].shape == (32, 80)
        torch.testing.assert_close(one[k][0].mean(dim=0), torch.zeros(80), atol=1e-5, rtol=0)
    epoch = [one[k][1] for k in range(6)]
    assert sorted(epoch) == [0, 0, 1, 1, 2, 2]
    assert [one[k][1] for k in range(60)] != epoch * 10


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_processes_share_the_global_batch(world_size: int) -> None:
    shares = [list(StepSampler(2, 4, 8, rank, world_size)) for rank in range(world_size)]
    steps = [sorted(itertools.chain.from_iterable(parts)) for parts in zip(*shares, strict=True)]
    assert steps == [list(range(16, 24)), list(range(24, 32))]
