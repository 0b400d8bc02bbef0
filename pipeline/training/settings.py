"""What a recipe says about a training run, fp32 or quantized."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TrainingSettings(BaseModel):
    """Random crops, AAM-softmax, linear warm-up, learning rate decaying exponentially to `final_lr`, once or in cycles.

    The method's optimizer is SGD with Nesterov momentum, for long runs; AdamW gets further in a few hundred steps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: Annotated[int, Field(ge=0)]
    batch: Annotated[int, Field(ge=2)] = 32  # crops per step over all processes
    crop_frames: Annotated[int, Field(ge=28, le=3000)] = 200
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0)] = 0.1
    final_lr: Annotated[float, Field(gt=0)] = 1e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    rate_cycles: Annotated[int, Field(ge=1)] = 1  # times that the rate runs from lr to final_lr, each as long
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # of sgd
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    scale: Annotated[float, Field(gt=0)] = 32.0
    margin: Annotated[float, Field(ge=0, le=1)] = 0.2
    margin_start: Annotated[float, Field(ge=0, le=1)] = 0.0  # share of the steps after which the margin begins to grow
    margin_full: Annotated[float, Field(ge=0, le=1)] = 0.0  # share of the steps after which it has its full value
    distillation: Annotated[float, Field(ge=0)] = 0.0  # weight of 1 - cos(student, fp32 teacher); 0: no teacher
    # Keep the batch-norms' statistics as the network came with them, and normalise by them: what a fine-tuned network
    # will be run with, and what its teacher is run with. False: those of each batch, and their running means.
    frozen_statistics: bool = False
    # End with a moving average of the weights over the steps (see average.py); 0: with those of the last step.
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    # auto: bf16-mixed where it is fast, else 32-true. 64-true: to compare runs; networks end as float32 all the same.
    precision: Literal["auto", "32-true", "64-true", "bf16-mixed", "16-mixed"] = "auto"
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 30.0
    workers: Annotated[int, Field(ge=0)] = 0  # processes that cut crops; 0: in the training process

    @model_validator(mode="after")
    def _ordered(self) -> TrainingSettings:
        if self.margin_full < self.margin_start:
            raise ValueError("margin_full comes before margin_start")
        return self

    def lr_at(self, step: int) -> float:
        """Learning rate of a step: linear warm-up times exponential decay from `lr` to `final_lr` in every cycle."""
        warmup = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        cycle = -(-self.steps // self.rate_cycles)
        share = step % cycle / max(1, cycle - 1)
        return float(warmup * self.lr * (self.final_lr / self.lr) ** share)

    def margin_at(self, step: int) -> float:
        """Margin of a step: 0, then growing linearly from `margin_start` to `margin_full`, then `margin`."""
        start, full = self.margin_start * self.steps, self.margin_full * self.steps
        if step >= full:
            return self.margin
        return 0.0 if step <= start else self.margin * (step - start) / (full - start)


_Decibels = Annotated[float, Field(ge=-30, le=60, allow_inf_nan=False)]


class AugmentationSettings(BaseModel):
    """How training crops are altered: the speed, then with `probability` one of noise, music, babble and reverb.

    A crop at another speed counts as another speaker's, so that each speed adds as many classes as there are speakers.
    Sounds come from a folder like MUSAN's (`noise/`, `music/`, `speech/`), rooms from a folder of impulse responses.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    speeds: tuple[Annotated[float, Field(ge=0.5, le=2)], ...] = ()  # beside 1, all equally often
    musan: str | None = None
    rirs: str | None = None
    probability: Annotated[float, Field(ge=0, le=1)] = 0.6
    noise_snr_db: tuple[_Decibels, _Decibels] = (0.0, 15.0)  # drawn evenly between the two
    music_snr_db: tuple[_Decibels, _Decibels] = (5.0, 15.0)
    babble_snr_db: tuple[_Decibels, _Decibels] = (13.0, 20.0)
    babble_voices: tuple[Annotated[int, Field(ge=1, le=50)], Annotated[int, Field(ge=1, le=50)]] = (3, 7)

    @model_validator(mode="after")
    def _sensible(self) -> AugmentationSettings:
        if not (self.speeds or self.musan or self.rirs):
            raise ValueError("none of speeds, musan and rirs is given; leave the section out for no augmentation")
        if 1.0 in self.speeds or len(set(self.speeds)) != len(self.speeds):
            raise ValueError("speeds are different from each other and from 1, which is always among them")
        for name in ("noise_snr_db", "music_snr_db", "babble_snr_db", "babble_voices"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} goes from {low} down to {high}")
        return self
