"""`voxpress calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands import options
from pipeline.commands.terminal import show


def calibrate(
    model: Annotated[Path, typer.Argument(help="Artifact folder, .pte, .tflite, pre-trained model folder or bundle.")],
    audio: options.Audio,
    trials: Annotated[
        Path, typer.Option(help="Trial list, `1 enrolment test \\[group]` or `0 enrolment test \\[group]`.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the calibration.")],
    far: Annotated[
        list[float] | None,
        typer.Option(
            help="False acceptance rate that a threshold is wanted for, e.g. 0.01; more than one may be given. Refused "
            "(exit code 3) if the list is too short. [default: 1 % and 0.1 %, as far as the list supports them]"
        ),
    ] = None,
    p_target: Annotated[float, typer.Option(help="Prior of a target trial, for minDCF and its threshold.")] = 0.01,
    reference: Annotated[
        Path | None, typer.Option(help="The fp32 model: which decisions differ from its, and how near the threshold.")
    ] = None,
    only: options.OneModel = None,
    crop_seconds: options.Crop = 0.0,
    threads: options.Threads = 1,
    cohort: options.CohortFile = None,
    cohort_top: options.CohortTop = 300,
    json: options.Json = False,
) -> None:
    """Thresholds and log-likelihood ratios of one model, from its own scores on a trial list."""
    from calibration.calibrate import CalibrationRequest
    from device_tests.calibrate import CalibrateOptions, Normalisation, calibration_tables
    from device_tests.calibrate import calibrate as calibrate_model
    from pipeline.progress import Progress
    from pipeline.scoring.metrics import DetectionCost

    calibration = calibrate_model(
        model,
        audio=audio,
        trials_file=trials,
        out=out,
        options=CalibrateOptions(
            request=CalibrationRequest(rates=tuple(far) if far else None, cost=DetectionCost(p_target=p_target)),
            reference=reference,
            only=only,
            crop_seconds=crop_seconds,
            threads=threads,
            cohort=None if cohort is None else Normalisation(cohort, cohort_top),
        ),
        progress=Progress(),
    )
    if json:
        typer.echo(calibration.model_dump_json(indent=1))
    else:
        show(*calibration_tables(calibration))
