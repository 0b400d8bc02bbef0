"""LiteRT's full int8 of a network in TensorFlow, with statistics pooling left in fp32.

A variance of values in 8 bits is a difference of large numbers that keeps few of its digits: with pooling in int8 the
embeddings of a trained ResNet34 had a cosine of 0.87 to 0.985 to the reference's, by how it was written, and 0.995 with
pooling in fp32. PT2E's and ONNX Runtime's int8 leave it in fp32 as well.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

# What a mean and a deviation are made of in TFLite; nothing else of our networks has these ops.
FLOAT_OPS = ("MEAN", "SUM", "SUB", "MUL", "DIV", "SQUARED_DIFFERENCE", "SQRT")


def quantized(converter: Any, samples: Callable[[], Iterable[Any]]) -> bytes:
    """The .tflite that a `tf.lite.TFLiteConverter` makes in int8: weights per channel, input and output in fp32.

    samples: calibration inputs as the converter takes them, each for one run; activation ranges are their extremes.
    """
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    # The debugger is the converter's only way to keep ops of some kinds out of quantization.
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=list(FLOAT_OPS))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*tf.lite.Interpreter is deprecated", category=UserWarning)
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=samples, debug_options=options
        )
        return bytes(debugger.get_nondebug_quantized_model())
