"""Options and arguments that several commands share, by what they mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

ModelArgument = Annotated[
    Path, typer.Argument(help="Pre-trained model folder, artifact folder, .pte, .tflite or bundle.")
]
BundleArgument = Annotated[Path, typer.Argument(help="A bundle's folder or zip.")]
OneModel = Annotated[str | None, typer.Option(help="The one model file of a bundle.")]

_AUDIO = "Folder that the trial list's paths are relative to, or a lhotse cut manifest with its ids."
Audio = Annotated[Path, typer.Option(help=_AUDIO)]
AudioIfAny = Annotated[Path | None, typer.Option(help=_AUDIO)]
Trials = Annotated[Path, typer.Option(help="Trial list, lines `1 enrolment test` or `0 enrolment test`.")]
Crop = Annotated[float, typer.Option(help="Use only the first seconds of each utterance; 0: all.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads of the runtime.")]
CohortFile = Annotated[
    Path | None, typer.Option(help="Normalise scores (AS-Norm) with this model's `voxpress cohort` file.")
]
CohortTop = Annotated[int, typer.Option(min=2, help="Nearest cohort speakers that AS-Norm takes.")]

Keys = Annotated[
    list[Path] | None,
    typer.Option("--key", help="Public key (PEM) whose signature is asked for; of several, one must have signed."),
]
MinVersion = Annotated[str | None, typer.Option(help="Refuse an older version than this.")]
Margin = Annotated[
    float, typer.Option(help="How much the EER of old enrolments may be above the worse of both, as a rate.")
]
