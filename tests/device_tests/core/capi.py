"""The apps' core through ctypes, as voxpress.h declares it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from exporters.native import native_path

Floats = npt.NDArray[np.float32]
OK, BAD_INPUT, CLOSED, FAILED = range(4)

VerifySignature = ctypes.CFUNCTYPE(
    ctypes.c_int32,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_uint8),
    ctypes.POINTER(ctypes.c_uint8),
    ctypes.c_size_t,
    ctypes.POINTER(ctypes.c_uint8),
)


class Error(ctypes.Structure):
    _fields_ = [("text", ctypes.c_char * 512)]


class Options(ctypes.Structure):
    _fields_ = [
        ("bundle", ctypes.c_char_p),
        ("public_keys", ctypes.c_char_p),
        ("verify_signature", VerifySignature),
        ("verify_context", ctypes.c_void_p),
        ("min_version", ctypes.c_char_p),
        ("format", ctypes.c_char_p),
        ("label", ctypes.c_char_p),
        ("mode", ctypes.c_char_p),
        ("operating_point", ctypes.c_char_p),
        ("threads", ctypes.c_int32),
        ("runtime_library", ctypes.c_char_p),
        ("delegate_library", ctypes.c_char_p),
        ("storage", ctypes.c_char_p),
    ]


class Info(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char * 68),
        ("version", ctypes.c_char * 36),
        ("signed_by", ctypes.c_char * 20),
        ("model", ctypes.c_char * 244),
        ("engine", ctypes.c_char * 20),
        ("runtime", ctypes.c_char * 36),
        ("operating_point", ctypes.c_char * 44),
        ("threshold", ctypes.c_double),
        ("sample_rate_hz", ctypes.c_int32),
        ("embedding_dim", ctypes.c_int32),
        ("min_samples", ctypes.c_int64),
        ("max_samples", ctypes.c_int64),
        ("voice_bytes", ctypes.c_size_t),
    ]


class RawDecision(ctypes.Structure):
    _fields_ = [("score", ctypes.c_double), ("llr", ctypes.c_double), ("accepted", ctypes.c_int32)]


class Samples(ctypes.Structure):
    _fields_ = [("data", ctypes.POINTER(ctypes.c_float)), ("count", ctypes.c_size_t)]


@dataclass(frozen=True)
class Decision:
    score: float
    llr: float
    accepted: bool


class CoreError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@cache
def library() -> ctypes.CDLL:
    found = ctypes.CDLL(str(native_path("voxpress")))
    found.voxpress_open.restype = ctypes.c_uint64
    found.voxpress_close.restype = None
    found.voxpress_close.argtypes = [ctypes.c_uint64]
    error, samples = ctypes.POINTER(Error), ctypes.POINTER(Samples)
    for name, arguments in {
        "info": [ctypes.POINTER(Info), error],
        "embed": [Samples, ctypes.c_void_p, error],
        "enroll": [samples, ctypes.c_size_t, ctypes.c_void_p, error],
        "verify": [ctypes.c_char_p, ctypes.c_size_t, Samples, ctypes.POINTER(RawDecision), error],
    }.items():
        getattr(found, f"voxpress_{name}").argtypes = [ctypes.c_uint64, *arguments]
    return found


@VerifySignature
def _verified(_context: Any, key: Any, message: Any, size: int, signature: Any) -> int:
    try:
        Ed25519PublicKey.from_public_bytes(bytes(key[:32])).verify(bytes(signature[:64]), bytes(message[:size]))
    except InvalidSignature:
        return 0
    return 1


def _samples(values: Floats) -> Samples:
    return Samples(values.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), len(values))


class Speaker:
    """An open handle; `open_bundle` makes one."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def _call(self, name: str, *arguments: Any) -> None:
        error = Error()
        status = getattr(library(), f"voxpress_{name}")(self.handle, *arguments, ctypes.byref(error))
        if status != OK:
            raise CoreError(status, error.text.decode("ascii"))

    def info(self) -> Info:
        info = Info()
        self._call("info", ctypes.byref(info))
        return info

    def embed(self, samples: Floats) -> Floats:
        embedding = np.empty(self.info().embedding_dim, np.float32)
        self._call("embed", _samples(samples), embedding.ctypes.data)
        return embedding

    def enroll(self, *utterances: Floats) -> bytes:
        voice = ctypes.create_string_buffer(self.info().voice_bytes)
        all_samples = (Samples * max(1, len(utterances)))(*map(_samples, utterances))
        self._call("enroll", all_samples, len(utterances), voice)
        return voice.raw

    def verify(self, voice: bytes, samples: Floats) -> Decision:
        decision = RawDecision()
        self._call("verify", voice, len(voice), _samples(samples), ctypes.byref(decision))
        return Decision(decision.score, decision.llr, bool(decision.accepted))

    def close(self) -> None:
        library().voxpress_close(self.handle)


def open_bundle(bundle: Path, public_keys: bytes, *, verify: Callable[..., int] = _verified, **options: Any) -> Speaker:
    texts = {key: value.encode() if isinstance(value, str) else value for key, value in options.items()}
    error = Error()
    made = Options(bundle=str(bundle).encode(), public_keys=public_keys, verify_signature=verify, **texts)
    handle = library().voxpress_open(ctypes.byref(made), ctypes.byref(error))
    if handle == 0:
        raise CoreError(BAD_INPUT, error.text.decode("ascii"))
    return Speaker(handle)


def benchmark(*arguments: object) -> tuple[int, str]:
    """Exit code and error text of the runner."""
    words = (ctypes.c_char_p * len(arguments))(*(str(word).encode() for word in arguments))
    error = Error()
    code = library().voxpress_benchmark(words, ctypes.c_size_t(len(arguments)), ctypes.byref(error))
    return code, error.text.decode("ascii")
