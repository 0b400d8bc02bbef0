"""What every device is to the protocol: something to be opened, made ready for timings, and told to run an engine.

A device is named on the command line, "host", "qemu-aarch64", "adb:<serial>", "ios:<identifier>". Phones give back
embeddings and raw timings only; everything is judged on the host.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol as Interface

from device_tests.records import DeviceClass, ModelFormat, Protocol


@dataclass(frozen=True)
class EngineCall:
    """One start of an engine: which model on which features, how often, and where its results are wanted here.

    `out` may hold what an earlier start of the same call left behind; the engine goes on from it.
    """

    model: Path
    format: ModelFormat
    sha256: str
    features: Path
    out: Path
    protocol: Protocol
    skip_accuracy: bool
    weights: Path | None = None  # of a .pte whose weights are a file of their own, read from beside it by its name

    def options(self, model: str, features: str, out: str) -> list[str]:
        """The engine's options, with the paths as the device names them."""
        return [
            *("--model", model),
            *("--features", features),
            *("--out", out),
            *("--sha256", self.sha256),
            *("--warmup", str(self.protocol.warmup)),
            *("--runs", str(self.protocol.runs)),
            *("--speed-frames", str(self.protocol.speed_frames)),
            *("--threads", str(self.protocol.threads)),
            *(("--low-memory",) if self.protocol.low_memory else ()),
            *(("--skip-accuracy",) if self.skip_accuracy else ()),
        ]


class Session(Interface):
    """An open device."""

    def engine_digest(self, model_format: ModelFormat) -> str:
        """Hex digest of the engine of a format and the native code it runs: another one is measured anew."""
        ...

    def ready(self) -> list[str]:
        """Wait until the device is fit for timings; returns what limits their worth, if anything."""
        ...

    def start(self, call: EngineCall, follow: Callable[[str], None]) -> int:
        """Run an engine to its end; its lines on the standard error stream go to `follow`.

        Returns its exit code, negative for the signal it died of. Afterwards its files are in `call.out`. Raises
        VoxPressError if it could not be started or the device was lost for good.
        """
        ...


class Device(Interface):
    """A device that can be opened."""

    @property
    def name(self) -> str:
        """As on the command line."""
        ...

    @property
    def device_class(self) -> DeviceClass:
        """Its section in gates.toml."""
        ...

    @property
    def latency_valid(self) -> bool:
        """False if its timings mean nothing by design."""
        ...

    def describe(self) -> str:
        """One line for people: what it is, or why it cannot be used now."""
        ...

    def open(self) -> AbstractContextManager[Session]:
        """Open it. Raises VoxPressError, on one line that names it, if that cannot be done."""
        ...
