"""The speaker ResNets: 3x3 stem of stride 1, no max-pool, four stages, temporal statistics pooling, one linear layer.

Key layout of the public wespeaker toolkit: `conv1`, `bn1`, `layer1.0.conv1`, `layer2.0.shortcut.0`, `seg_1`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from pipeline.models.network import Lowering, SpeakerNetwork


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    if stride == 1 and in_channels == out_channels:
        return nn.Sequential()
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
    )


def _lower_shortcut(shortcut: nn.Sequential, x: str, lowering: Lowering) -> str:
    if len(shortcut) == 0:
        return x
    conv, norm = shortcut
    return lowering.conv(x, conv, norm, relu=False)  # type: ignore[arg-type]


class BasicBlock(nn.Module):
    """relu(bn(conv3x3(relu(bn(conv3x3(x))))) + shortcut(x))."""

    expansion: ClassVar[int] = 1

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = _shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, mel, frames] -> [N, C', mel / stride, frames / stride]."""
        y = self.bn1(self.conv1(x)).relu()
        out: Tensor = (self.bn2(self.conv2(y)) + self.shortcut(x)).relu()
        return out

    def lower(self, x: str, lowering: Lowering) -> str:
        """Add the block's nodes; the shortcut comes first, since the last convolution adds it."""
        shortcut = _lower_shortcut(self.shortcut, x, lowering)
        y = lowering.conv(x, self.conv1, self.bn1, relu=True)
        return lowering.conv(y, self.conv2, self.bn2, relu=True, residual=shortcut)


class Bottleneck(nn.Module):
    """relu(bn(conv1x1(relu(bn(conv3x3(relu(bn(conv1x1(x)))))))) + shortcut(x)), four times wider at its end."""

    expansion: ClassVar[int] = 4

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.shortcut = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, mel, frames] -> [N, 4 C', mel / stride, frames / stride]."""
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        out: Tensor = (self.bn3(self.conv3(y)) + self.shortcut(x)).relu()
        return out

    def lower(self, x: str, lowering: Lowering) -> str:
        """Add the block's nodes; the shortcut comes first, since the last convolution adds it."""
        shortcut = _lower_shortcut(self.shortcut, x, lowering)
        y = lowering.conv(x, self.conv1, self.bn1, relu=True)
        y = lowering.conv(y, self.conv2, self.bn2, relu=True)
        return lowering.conv(y, self.conv3, self.bn3, relu=True, residual=shortcut)


class ResNet(SpeakerNetwork):
    """Speaker ResNet: features [N, frames, mel] -> embeddings [N, E].

    Args:
        block: BasicBlock or Bottleneck.
        blocks: blocks in each of the four stages, e.g. (3, 4, 6, 3) for ResNet34.
        base_channels: channels of the first stage; doubled from stage to stage.
        num_mel_bins: mel bins of the features.
        embedding_dim: E.
        embedding_layers: 1 or 2.

    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: Sequence[int],
        *,
        base_channels: int = 32,
        num_mel_bins: int = 80,
        embedding_dim: int = 256,
        embedding_layers: int = 1,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, base_channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(base_channels)
        channels, mel = base_channels, num_mel_bins
        for stage, count in enumerate(blocks):
            width, stride = base_channels << stage, 1 if stage == 0 else 2
            layers = []
            for index in range(count):
                layers.append(block(channels, width, stride if index == 0 else 1))
                channels = width * block.expansion
            mel = (mel - 1) // stride + 1
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self._add_embedding(channels, mel, embedding_dim, embedding_layers)

    def _stages(self) -> list[nn.Sequential]:
        return [self.get_submodule(f"layer{stage}") for stage in (1, 2, 3, 4)]  # type: ignore[misc]

    def frame_level(self, x: Tensor) -> Tensor:
        """[N, 1, mel, frames] -> [N, C, mel / 8, frames / 8]."""
        x = self.bn1(self.conv1(x)).relu()
        for stage in self._stages():
            x = stage(x)
        return x

    def lower_frame_level(self, x: str, lowering: Lowering) -> str:
        """Add the nodes of `frame_level` and return the last one's name."""
        x = lowering.conv(x, self.conv1, self.bn1, relu=True)
        for stage in self._stages():
            for block in stage:
                x = block.lower(x, lowering)  # type: ignore[operator, union-attr]
        return x
