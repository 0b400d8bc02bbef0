"""Post-training quantization: a pre-trained model and a few dozen utterances in, an artifact out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from calibration.norms import recalibrate_norms
from calibration.plan import (
    PLAN_FILE,
    Plan,
    check_budget,
    described_plan,
    make_plan,
    read_plan,
    rounding_errors,
    uniform_bytes,
    write_plan,
)
from calibration.sensitivity import mean_hessian_traces
from pipeline.artifact.store import LoadedArtifact, write_artifact
from pipeline.corpus.read import read_corpus
from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from pipeline.features.store import FeatureSource
from pipeline.files import folder_written_whole
from pipeline.models.network import lower
from pipeline.models.store import PretrainedModel, read_pretrained
from pipeline.progress import Progress
from pipeline.quantize.apply import attach_palettes, press
from pipeline.stamp import tool_versions
from pipeline.training.crops import CropDataset

MIN_UTTERANCES = 4
CROP_FRAMES = 200


@dataclass(frozen=True)
class Widths:
    """What decides the widths; exactly one of the first four is given."""

    bits: int | None = None  # the same in every layer
    average_bits: float | None = None  # mixed, at the bytes of that uniform width
    budget_bytes: int | None = None  # mixed, at most so many bytes
    plan: Path | None = None  # mixed, by hand
    audio: Path | None = None  # calibration utterances: for batch-norm statistics, and needed for the two budgets
    crops: int = 64
    probes: int = 2  # crops bring more than probes: two of 64 crops agree to a few per cent with many more
    seed: int = 0

    def __post_init__(self) -> None:
        given = [name for name in ("bits", "average_bits", "budget_bytes", "plan") if getattr(self, name) is not None]
        if len(given) != 1:
            expected = "exactly one of --bits, --average-bits, --budget-bytes and --plan"
            raise InputError("widths", expected=expected, found=", ".join(given) or "none")
        if self.bits is not None and not 1 <= self.bits <= 8:
            raise InputError("--bits", expected="a width from 1 to 8", found=str(self.bits))
        if self.average_bits is not None and not 1 <= self.average_bits <= 8:
            raise InputError("--average-bits", expected="a number from 1 to 8", found=f"{self.average_bits:g}")
        if given[0] in ("average_bits", "budget_bytes") and self.audio is None:
            raise InputError("--audio", expected="a folder of calibration utterances, for a budget", found="none")


def quantize_model(model: Path, widths: Widths, out: Path, *, progress: Progress) -> tuple[LoadedArtifact, Plan]:
    """Press a pre-trained model without training and write the artifact and its plan into the folder `out`.

    Raises InputError for a bad model, plan or corpus, and for a budget below 1 bit in every layer.
    """
    pretrained = read_pretrained(model)
    plan, label = _plan(pretrained, widths, progress)
    attach_palettes(pretrained.network, plan.layers)
    if widths.audio is not None:
        recalibrate_norms(pretrained.network, _calibration_crops(widths, pretrained.frontend))
    artifact = press(
        pretrained.network,
        name=f"{pretrained.header.spec.name}-{label}",
        architecture=pretrained.header.spec.architecture,
        frontend=pretrained.frontend,
        created_by=f"voxpress {tool_versions()['voxpress']}",
        source_sha256=pretrained.sha256,
    )
    if out.exists() and not (out.is_dir() and ((out / PLAN_FILE).is_file() or not any(out.iterdir()))):
        raise InputError(out, expected="a new or empty folder, or an artifact to be replaced", found="something else")
    with folder_written_whole(out) as folder:
        write_plan(folder, plan)
        write_artifact(folder, artifact)
    return artifact, plan


def _plan(pretrained: PretrainedModel, widths: Widths, progress: Progress) -> tuple[Plan, str]:
    layers = lower(pretrained.network).layers
    nodes = [layer.node for layer in layers]
    if widths.bits is not None:
        return described_plan(nodes, {node.name: widths.bits for node in nodes}, None), f"{widths.bits}bit"
    if widths.plan is not None:
        return described_plan(nodes, read_plan(widths.plan, nodes).layers, None), f"mixed-{widths.plan.stem}"
    if widths.average_bits is not None:
        budget, label = uniform_bytes(nodes, widths.average_bits), f"mixed-{widths.average_bits:g}bit"
    else:
        budget, label = widths.budget_bytes or 0, f"mixed-{widths.budget_bytes}bytes"
    check_budget(nodes, budget)  # before sensitivities are measured, which takes its time
    crops = _calibration_crops(widths, pretrained.frontend)
    with progress.task("sensitivity", len(crops) * widths.probes) as task:
        traces = mean_hessian_traces(
            pretrained.network, crops, probes=widths.probes, seed=widths.seed, progress=task.advance
        )
    return make_plan(nodes, traces, rounding_errors(layers), budget), label


def _calibration_crops(widths: Widths, spec: FrontEndSpec) -> list[torch.Tensor]:
    if widths.audio is None:
        raise InputError("--audio", expected="a folder of calibration utterances", found="none")
    cuts = read_corpus(widths.audio, sample_rate_hz=spec.sample_rate_hz, min_seconds=spec.min_seconds)
    if len(cuts) < MIN_UTTERANCES:
        raise InputError(widths.audio, expected=f"at least {MIN_UTTERANCES} utterances", found=str(len(cuts)))
    source = FeatureSource(cuts, spec, cache="none")
    # No labels are needed, so every utterance may as well be one speaker's.
    data = CropDataset(source, dict.fromkeys(source.ids, "any"), CROP_FRAMES, widths.seed)
    return [data[index][0] for index in range(widths.crops)]
