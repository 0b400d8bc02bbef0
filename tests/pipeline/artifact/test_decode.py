"""The reference network against the formula, written out in numpy loops."""

import numpy as np
import pytest
import torch

from pipeline.artifact.decode import decode, stats_pool
from pipeline.artifact.schema import Conv2dNode
from pipeline.artifact.store import LoadedArtifact, StoredLayer
from tests.factories import tiny_artifact


def _conv(x: np.ndarray, layer: StoredLayer, residual: np.ndarray | None) -> np.ndarray:
    node, weight = layer.node, layer.dense_weight().astype(np.float64)
    (pt, pf), (st, sf), (kt, kf) = node.padding, node.stride, node.kernel
    padded = np.pad(x, ((pt, pt), (pf, pf), (0, 0)))
    frames, mel = (padded.shape[0] - kt) // st + 1, (padded.shape[1] - kf) // sf + 1
    inputs, outputs = node.in_channels // node.groups, node.out_channels // node.groups
    out = np.zeros((frames, mel, node.out_channels))
    for t in range(frames):
        for f in range(mel):
            window = padded[t * st : t * st + kt, f * sf : f * sf + kf]
            for o in range(node.out_channels):
                g = o // outputs
                out[t, f, o] = (window[:, :, g * inputs : (g + 1) * inputs] * weight[o]).sum()
    out = out * layer.scale + layer.bias
    if residual is not None:
        out = out + residual
    return np.maximum(out, 0) if node.relu else out


def _run(artifact: LoadedArtifact, features: np.ndarray) -> np.ndarray:
    values = {"features": features[:, :, None].astype(np.float64)}
    for node in artifact.header.program:
        x = values[node.input]
        if isinstance(node, Conv2dNode):
            residual = None if node.residual is None else values[node.residual]
            values[node.name] = _conv(x, artifact.layers[node.name], residual)
        else:
            deviation = np.sqrt(x.var(axis=0, ddof=1) + 1e-7)
            values[node.name] = np.concatenate([x.mean(axis=0).reshape(-1), deviation.reshape(-1)])[None, None, :]
    return values[artifact.header.program[-1].name].reshape(-1)


@pytest.mark.parametrize("bits", [1, 4, 32])
@pytest.mark.parametrize("depthwise", [False, True])
def test_the_reference_network_is_the_formula(bits: int, depthwise: bool) -> None:
    artifact = tiny_artifact(bits, depthwise=depthwise)
    features = np.random.default_rng(0).normal(size=(9, 80)).astype(np.float32)
    got = decode(artifact)(torch.from_numpy(features)[None])[0].numpy()
    wanted = _run(artifact, features)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_a_batch_is_its_utterances() -> None:
    network = decode(tiny_artifact())
    features = torch.randn(3, 40, 80, generator=torch.Generator().manual_seed(1))
    together = network(features)
    alone = torch.cat([network(one[None]) for one in features])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_pooling_one_frame_gives_the_smallest_deviation() -> None:
    pooled = stats_pool(torch.ones(1, 1, 2, 3))
    assert pooled.shape == (1, 1, 1, 12)
    torch.testing.assert_close(pooled[0, 0, 0], torch.tensor([1.0] * 6 + [1e-7**0.5] * 6))
