"""The wespeaker toolkit's networks from what is known of their key layout: random checkpoints and a plain forward.

Nothing here uses VoxPress's networks: the forward walks the keys of a state dict, in float64.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

State = dict[str, Tensor]

BASIC, BOTTLENECK = "basic", "bottleneck"
# (mel, frames) of the layer in front of each stage of a Gemini DF-ResNet.
GEMINI_STRIDES = ((2, 1), (2, 2), (2, 1), (2, 1))


def resnet_state(
    kind: str, blocks: tuple[int, int, int, int], *, base: int, mel: int, embedding: int, two_layers: bool = False
) -> State:
    """A random ResNet checkpoint."""
    draw = _Draw()
    draw.conv_norm("conv1", "bn1", base, 1, 3)
    channels = base
    for stage, count in enumerate(blocks):
        width = base * 2**stage
        out = width * (4 if kind == BOTTLENECK else 1)
        for index in range(count):
            block = f"layer{stage + 1}.{index}"
            sizes = [(width, 3), (width, 3)] if kind == BASIC else [(width, 1), (width, 3), (out, 1)]
            inside = channels
            for number, (wide, kernel) in enumerate(sizes, start=1):
                draw.conv_norm(f"{block}.conv{number}", f"{block}.bn{number}", wide, inside, kernel)
                inside = wide
            if index == 0 and (stage > 0 or channels != out):
                draw.conv_norm(f"{block}.shortcut.0", f"{block}.shortcut.1", out, channels, 1)
            channels = out
    draw.embedding(channels * (mel // 8), embedding, two_layers=two_layers)
    return draw.state


def gemini_state(
    blocks: tuple[int, int, int, int], *, base: int, mel: int, embedding: int, two_layers: bool = False
) -> State:
    """A random Gemini DF-ResNet checkpoint."""
    draw = _Draw()
    draw.conv_norm("downsample_layers.0.0", "downsample_layers.0.1", base, 1, 3)
    channels = base
    for stage, count in enumerate(blocks):
        width = base * 2**stage
        names = f"downsample_layers.{stage + 1}.0", f"downsample_layers.{stage + 1}.1"
        draw.conv_norm(*names, width, channels, 3)
        channels = width
        for index in range(count):
            block = f"stages.{stage}.{index}"
            draw.conv_norm(f"{block}.conv1", f"{block}.bn1", 4 * width, width, 1)
            draw.conv_norm(f"{block}.conv2", f"{block}.bn2", 4 * width, 1, 3)  # depthwise
            draw.conv_norm(f"{block}.conv3", f"{block}.bn3", width, 4 * width, 1)
    draw.embedding(channels * (mel // 16), embedding, two_layers=two_layers)
    return draw.state


def toolkit_embedding(state: State, features: Tensor) -> Tensor:
    """What the toolkit gives for features [N, frames, mel]: its last output, [N, E], in float64."""
    state = {key: value.double() for key, value in state.items()}
    x = features.double().permute(0, 2, 1)[:, None]
    x = _gemini(state, x) if "stages.0.0.conv1.weight" in state else _resnet(state, x)
    statistics = torch.cat([x.mean(-1).flatten(1), (x.var(-1) + 1e-7).sqrt().flatten(1)], 1)
    out = functional.linear(statistics, state["seg_1.weight"], state["seg_1.bias"])
    if "seg_2.weight" in state:
        mean, variance = state["seg_bn_1.running_mean"], state["seg_bn_1.running_var"]
        hidden = (out.clamp(min=0) - mean) / (variance + 1e-5).sqrt()
        out = functional.linear(hidden, state["seg_2.weight"], state["seg_2.bias"])
    return out


class _Draw:
    def __init__(self) -> None:
        self.state: State = {}
        self.random = torch.Generator().manual_seed(7)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.random)

    def _statistics(self, name: str, channels: int) -> None:
        self.state[f"{name}.running_mean"] = 0.1 * self._normal(channels)
        self.state[f"{name}.running_var"] = 0.5 + torch.rand(channels, generator=self.random)
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(1000)

    def conv_norm(self, conv: str, norm: str, out: int, inside: int, kernel: int) -> None:
        deviation = (inside * kernel**2) ** -0.5
        self.state[f"{conv}.weight"] = deviation * self._normal(out, inside, kernel, kernel)
        self.state[f"{norm}.weight"] = 0.5 + torch.rand(out, generator=self.random)
        self.state[f"{norm}.bias"] = 0.1 * self._normal(out)
        self._statistics(norm, out)

    def embedding(self, pooled: int, size: int, *, two_layers: bool) -> None:
        self.state["seg_1.weight"] = (2 * pooled) ** -0.5 * self._normal(size, 2 * pooled)
        self.state["seg_1.bias"] = 0.1 * self._normal(size)
        if two_layers:
            self._statistics("seg_bn_1", size)
            self.state["seg_2.weight"] = size**-0.5 * self._normal(size, size)
            self.state["seg_2.bias"] = 0.1 * self._normal(size)


def _conv_norm(state: State, conv: str, norm: str, x: Tensor, stride: int | tuple[int, int] = 1) -> Tensor:
    weight = state[f"{conv}.weight"]
    groups = x.shape[1] // weight.shape[1]
    y = functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
    statistics = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
    return functional.batch_norm(y, *statistics, state[f"{norm}.weight"], state[f"{norm}.bias"], eps=1e-5)


def _blocks(state: State, stage: str) -> Iterator[str]:
    index = 0
    while f"{stage}.{index}.conv1.weight" in state:
        yield f"{stage}.{index}"
        index += 1


def _resnet(state: State, x: Tensor) -> Tensor:
    x = _conv_norm(state, "conv1", "bn1", x).clamp(min=0)
    for stage in (1, 2, 3, 4):
        for block in _blocks(state, f"layer{stage}"):
            stride = 2 if stage > 1 and block.endswith(".0") else 1
            last = 3 if f"{block}.conv3.weight" in state else 2
            strided = last - 1  # the 3x3 convolution of a bottleneck, the first of a basic block
            y = x
            for number in range(1, last + 1):
                step = stride if number == strided else 1
                y = _conv_norm(state, f"{block}.conv{number}", f"{block}.bn{number}", y, step)
                y = y if number == last else y.clamp(min=0)
            if f"{block}.shortcut.0.weight" in state:
                x = _conv_norm(state, f"{block}.shortcut.0", f"{block}.shortcut.1", x, stride)
            x = (y + x).clamp(min=0)
    return x


def _gemini(state: State, x: Tensor) -> Tensor:
    x = _conv_norm(state, "downsample_layers.0.0", "downsample_layers.0.1", x).clamp(min=0)
    for stage, stride in enumerate(GEMINI_STRIDES):
        x = _conv_norm(state, f"downsample_layers.{stage + 1}.0", f"downsample_layers.{stage + 1}.1", x, stride)
        for block in _blocks(state, f"stages.{stage}"):
            y = _conv_norm(state, f"{block}.conv1", f"{block}.bn1", x).clamp(min=0)
            y = _conv_norm(state, f"{block}.conv2", f"{block}.bn2", y).clamp(min=0)
            x = (_conv_norm(state, f"{block}.conv3", f"{block}.bn3", y) + x).clamp(min=0)
    return x
