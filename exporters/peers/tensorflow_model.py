"""LiteRT files by TensorFlow's own converter: fp32, dynamic-range int8 and full int8."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import tensorflow as tf

from exporters.peers.request import PeerRequest
from exporters.tflite.emit import OUTPUT_NAME
from exporters.tflite.int8 import quantized
from pipeline.artifact.schema import INPUT_NAME, STATS_POOL_EPSILON, Conv2dNode
from pipeline.artifact.store import LoadedArtifact

Numbers = Literal["fp32", "dynamic", "int8"]


def convert_tflite(request: PeerRequest, numbers: Numbers) -> bytes:
    """The network as a .tflite: features [1, T, mel] -> embedding [1, E], both fp32, T dynamic.

    "dynamic" stores int8 weights and quantizes activations at run time; "int8" is `exporters.tflite.int8`, with the
    activation ranges of `calibration`.
    """
    network = TensorFlowNetwork(request.artifact)
    mel = request.artifact.header.frontend.num_mel_bins
    signature = [tf.TensorSpec((1, None, mel), tf.float32, name=INPUT_NAME)]
    function = tf.function(network.embed, input_signature=signature).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], network)
    if numbers == "int8":
        return quantized(converter, lambda: ([crop[None]] for crop in request.calibration))
    if numbers == "dynamic":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return bytes(converter.convert())


class TensorFlowNetwork(tf.Module):  # type: ignore[misc]
    """An artifact's program in TensorFlow's ops on NHWC tensors, weights in fp32 with the scales folded in."""

    def __init__(self, artifact: LoadedArtifact) -> None:
        super().__init__()
        self.header = artifact.header
        self.kernels, self.biases = {}, {}
        for name, layer in artifact.layers.items():
            # [O, frames, mel, I / groups] -> [frames, mel, I / groups, O], of a depthwise layer [frames, mel, O, 1]
            kernel = (layer.dense_weight() * layer.scale[:, None, None, None]).transpose(1, 2, 3, 0)
            depthwise = layer.node.groups == layer.node.in_channels == layer.node.out_channels > 1
            kernel = kernel.transpose(0, 1, 3, 2) if depthwise else kernel
            self.kernels[name] = tf.constant(np.ascontiguousarray(kernel))
            self.biases[name] = tf.constant(layer.bias)

    def embed(self, features: Any) -> dict[str, Any]:
        """[1, T, mel] -> {"embedding": [1, E]}."""
        values, vectors = {INPUT_NAME: features[..., None]}, set()
        for node in self.header.program:
            x = values[node.input]
            if not isinstance(node, Conv2dNode):
                values[node.name] = self._stats_pool(x)
                vectors.add(node.name)
                continue
            if node.input in vectors:
                kernel = tf.reshape(self.kernels[node.name], (node.in_channels, node.out_channels))
                y = tf.linalg.matmul(x, kernel) + self.biases[node.name]
                vectors.add(node.name)
            else:
                y = self._convolution(node, x)
            if node.residual is not None:
                y = y + values[node.residual]
            values[node.name] = tf.nn.relu(y) if node.relu else y
        return {OUTPUT_NAME: values[self.header.program[-1].name]}

    def _convolution(self, node: Conv2dNode, x: Any) -> Any:
        same = node.stride == (1, 1) and all(
            2 * size == kernel - 1 for size, kernel in zip(node.padding, node.kernel, strict=True)
        )
        if not same and node.padding != (0, 0):
            x = tf.pad(x, [[0, 0], [node.padding[0]] * 2, [node.padding[1]] * 2, [0, 0]])
        depthwise = node.groups == node.in_channels == node.out_channels > 1
        convolve = tf.nn.depthwise_conv2d if depthwise else tf.nn.conv2d
        y = convolve(x, self.kernels[node.name], (1, *node.stride, 1), "SAME" if same else "VALID")
        return tf.nn.bias_add(y, self.biases[node.name])

    @staticmethod
    def _stats_pool(x: Any) -> Any:
        """[1, T, mel, C] -> [1, 2 * mel * C]: mean and deviation, mel-major."""
        degrees = tf.maximum(tf.cast(tf.shape(x)[1], tf.float32) - 1, 1.0)
        mean = tf.reduce_mean(x, 1, keepdims=True)
        variance = tf.reduce_sum(tf.math.squared_difference(x, mean), 1, keepdims=True) / degrees
        return tf.reshape(tf.concat([mean, tf.sqrt(variance + STATS_POOL_EPSILON)], 1), (1, -1))
