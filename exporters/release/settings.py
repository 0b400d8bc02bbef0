"""Release settings: one TOML file with the gates that a release must pass and the words of its model card."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

import pydantic
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from pipeline.errors import InputError
from pipeline.files import first_problem
from pipeline.recipe import refuse_unknown_keys

Rate = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GateSettings(_Section):
    """Limits on the primary artifact; those that are left out do not apply."""

    max_eer: Rate | None = None  # of the calibration's trials
    max_eer_high: Rate | None = None  # the upper end of its interval
    max_min_dcf: Rate | None = None
    max_frr: dict[str, Rate] = {}  # by threshold, e.g. "far-1%" = 0.1; the threshold must be there
    min_target_trials: NonNegativeInt = 0
    min_nontarget_trials: NonNegativeInt = 0
    min_speakers: NonNegativeInt = 0
    max_model_bytes: PositiveInt | None = None  # of each model file
    max_latency_ratio: Annotated[float, Field(gt=0)] | None = None  # to fp32, on every device that was tested
    max_harmful_flips: Rate | None = None  # share of trials newly wrong against fp32, at the EER threshold
    max_eer_increase: Rate | None = None  # over the version before, by the trials of the compatibility test


class CardSettings(_Section):
    """What only people know, for the model card."""

    intended_use: str = (
        "Deciding whether two recordings of speech are of the same speaker, on the device, for a user who agreed to be "
        "enrolled."
    )
    out_of_scope: str = (
        "Identifying people who did not agree to it. Guarding access by itself: recordings and synthetic speech are "
        "not detected."
    )
    training_data: str = "Not stated."
    evaluation_data: str = "Not stated."
    limits: tuple[str, ...] = ()
    contact: str = "Not stated."


class ReleaseSettings(_Section):
    """A release's TOML file."""

    gates: GateSettings = GateSettings()
    card: CardSettings = CardSettings()


def read_release_settings(path: Path | None) -> ReleaseSettings:
    """Settings of a TOML file; the defaults for none. Raises InputError naming the file for anything wrong in it."""
    if path is None:
        return ReleaseSettings()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            path, expected="release settings", found=getattr(error, "strerror", None) or str(error)
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(path, expected="TOML", found=str(error)) from None
    refuse_unknown_keys(path, content, ReleaseSettings)
    try:
        return ReleaseSettings.model_validate(content)
    except pydantic.ValidationError as error:
        raise InputError(path, expected="release settings", found=first_problem(error)) from None
