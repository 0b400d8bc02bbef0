"""The depth-first ResNets: inverted bottlenecks all the way, and downsampling in layers of its own between the stages.

Key layout of the public wespeaker toolkit's Gemini DF-ResNet: `downsample_layers.0.0` (the stem),
`downsample_layers.1.0`, `stages.0.0.conv1`, `seg_1`. Only the stem and the blocks have ReLUs: a downsampling layer ends
with its norm.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from pipeline.artifact.schema import conv_out_size
from pipeline.models.network import Lowering, SpeakerNetwork


@dataclass(frozen=True)
class Downsampling:
    """A convolution and a batch-norm in front of a stage."""

    kernel: int
    stride: tuple[int, int]  # (mel, frames)

    @property
    def padding(self) -> int:
        """None for 2x2, which tiles its input; one for 3x3."""
        return (self.kernel - 1) // 2

    def layer(self, in_channels: int, out_channels: int) -> nn.Sequential:
        """norm(conv(x)), without a ReLU."""
        conv = nn.Conv2d(in_channels, out_channels, self.kernel, stride=self.stride, padding=self.padding, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


_TILES = Downsampling(2, (2, 2))
_OVERLAPPING = Downsampling(3, (2, 2))
_MEL_ONLY = Downsampling(3, (2, 1))

# The downsampling in front of each of the four stages. The published sizes of the two smaller networks, 4.49 M and
# 6.98 M parameters, are those of 2x2 downsampling (4.48 and 6.96), the sizes of the two larger ones, 9.84 M and 12.3 M,
# those of 3x3 (9.84 and 12.33). Golden Gemini keeps time at half its rate and halves mel four times.
TILING: tuple[Downsampling | None, ...] = (None, _TILES, _TILES, _TILES)
OVERLAPPING: tuple[Downsampling | None, ...] = (None, _OVERLAPPING, _OVERLAPPING, _OVERLAPPING)
GEMINI: tuple[Downsampling | None, ...] = (_MEL_ONLY, _OVERLAPPING, _MEL_ONLY, _MEL_ONLY)


class InvertedBottleneck(nn.Module):
    """relu(bn(conv1x1(relu(bn(depthwise3x3(relu(bn(conv1x1(x)))))))) + x), four times wider inside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 4 * channels
        self.conv1 = nn.Conv2d(channels, wide, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.conv3 = nn.Conv2d(wide, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        # A fresh block is the identity (Goyal et al., 2017). With all gammas at 1 the gradient grows on its way through
        # the 18 blocks of DF-ResNet56, bfloat16 loses its direction, and training does not get started.
        nn.init.zeros_(self.bn3.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, mel, frames] -> the same shape."""
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        out: Tensor = (self.bn3(self.conv3(y)) + x).relu()
        return out

    def lower(self, x: str, lowering: Lowering) -> str:
        """Add the block's three nodes and return the last one's name."""
        y = lowering.conv(x, self.conv1, self.bn1, relu=True)
        y = lowering.conv(y, self.conv2, self.bn2, relu=True)
        return lowering.conv(y, self.conv3, self.bn3, relu=True, residual=x)


class DfResNet(SpeakerNetwork):
    """Depth-first speaker ResNet: features [N, frames, mel] -> embeddings [N, E].

    Args:
        blocks: blocks in each of the four stages, e.g. (3, 3, 27, 3) for DF-ResNet110.
        downsampling: what stands in front of each stage: TILING, OVERLAPPING or GEMINI.
        base_channels: channels of the stem and the first stage; doubled from stage to stage.
        num_mel_bins: mel bins of the features.
        embedding_dim: E.
        embedding_layers: 1 or 2.

    """

    def __init__(
        self,
        blocks: tuple[int, int, int, int],
        downsampling: tuple[Downsampling | None, ...],
        *,
        base_channels: int = 32,
        num_mel_bins: int = 80,
        embedding_dim: int = 256,
        embedding_layers: int = 1,
    ) -> None:
        super().__init__()
        stem = nn.Sequential(
            nn.Conv2d(1, base_channels, 3, padding=1, bias=False), nn.BatchNorm2d(base_channels), nn.ReLU()
        )
        self.downsample_layers = nn.ModuleList([stem])
        self.stages = nn.ModuleList()
        self._starts_lower = tuple(step is not None for step in downsampling)
        channels, mel = base_channels, num_mel_bins
        for stage, (count, step) in enumerate(zip(blocks, downsampling, strict=True)):
            if step is not None:
                width = base_channels << stage
                self.downsample_layers.append(step.layer(channels, width))
                channels, mel = width, conv_out_size(mel, step.kernel, step.stride[0], step.padding)
            self.stages.append(nn.Sequential(*(InvertedBottleneck(channels) for _ in range(count))))
        self._add_embedding(channels, mel, embedding_dim, embedding_layers)

    def _parts(self) -> list[tuple[nn.Sequential | None, nn.Sequential]]:
        """Downsampling layer, if there is one, and blocks of every stage."""
        layers = iter(self.downsample_layers[1:])
        return [
            (next(layers) if lower else None, stage)  # type: ignore[misc]
            for lower, stage in zip(self._starts_lower, self.stages, strict=True)
        ]

    def frame_level(self, x: Tensor) -> Tensor:
        """[N, 1, mel, frames] -> [N, C, mel', frames']: both an eighth, with Gemini strides mel / 16 and frames / 2."""
        x = self.downsample_layers[0](x)
        for downsample, stage in self._parts():
            x = stage(x if downsample is None else downsample(x))
        return x

    def lower_frame_level(self, x: str, lowering: Lowering) -> str:
        """Add the nodes of `frame_level` and return the last one's name."""
        stem = self.downsample_layers[0]
        x = lowering.conv(x, stem[0], stem[1], relu=True)  # type: ignore[index]
        for downsample, stage in self._parts():
            if downsample is not None:
                x = lowering.conv(x, downsample[0], downsample[1], relu=False)  # type: ignore[arg-type]
            for block in stage:
                x = block.lower(x, lowering)  # type: ignore[operator]
        return x
