"""Which network, by name and width; without torch, so that recipes can be read without it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class ModelSpec(BaseModel):
    """Which network, and how wide."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str = "resnet34"
    base_channels: Annotated[int, Field(ge=1, le=256)] = 32
    embedding_dim: Annotated[int, Field(ge=1, le=4096)] = 256
    embedding_layers: Literal[1, 2] = 1  # 2: linear, ReLU, batch-norm, linear
    num_mel_bins: Annotated[int, Field(ge=8, le=256)] = 80

    @property
    def name(self) -> str:
        """The name that files carry: the architecture, with its base channels where they are not 32."""
        return self.architecture if self.base_channels == 32 else f"{self.architecture}-c{self.base_channels}"
