"""Synthetic voices: a source-filter synthesiser whose parameters are drawn per speaker, session and utterance.

Excitation (glottal pulses, breath, frication) is cut into overlapping frames, and every frame is filtered in the
frequency domain by its formants: out = sum_t shift_t(irfft(rfft(hann * excitation_t) * H_t)). All frames of an
utterance are one array operation, which is what makes a corpus of half an hour a matter of seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import signal

SAMPLE_RATE_HZ = 16000

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]

_HOP = 128  # 8 ms
_WINDOW = 2 * _HOP  # Hann windows at half overlap sum to one
_FFT = 1024  # leaves 24 ms on either side of a window for the response of the formants
_BINS_KHZ = (np.arange(_FFT // 2 + 1) * (SAMPLE_RATE_HZ / _FFT / 1000)).astype(np.float32)

# Formants of a long vocal tract, in kHz: F1 to F4 of eight vowels.
_VOWELS_KHZ = np.array(
    [
        [0.28, 2.25, 2.95, 3.55],
        [0.42, 1.98, 2.55, 3.50],
        [0.65, 1.72, 2.42, 3.45],
        [0.73, 1.10, 2.45, 3.40],
        [0.56, 0.86, 2.42, 3.30],
        [0.32, 0.86, 2.25, 3.30],
        [0.48, 1.36, 1.75, 3.20],
        [0.50, 1.48, 2.48, 3.45],
    ]
)
_BANDWIDTHS_KHZ = np.array([0.07, 0.09, 0.13, 0.19, 0.26])
_F5_KHZ = 4.4
# Centre in kHz and width in octaves of the noise of fricatives, and of the bursts of stops.
_FRICATIVES = np.array([[6.2, 0.45], [3.3, 0.50], [4.6, 1.30]])
_BURSTS = np.array([[0.9, 1.20], [4.2, 0.70], [1.9, 0.55]])
_NASALS_KHZ = np.array([[0.27, 1.05, 2.20, 3.20], [0.28, 1.60, 2.50, 3.30]])


@dataclass(frozen=True)
class Voice:
    """What belongs to a speaker, over all sessions."""

    f0_hz: float
    f0_range: float  # standard deviation of the contour, in log Hz
    f0_fall: float  # of log F0 from the beginning to the end of a phrase
    jitter: float
    shimmer: float
    breath: float
    open_quotient: float
    tilt_db_per_octave: float
    vowels_khz: Float64  # [8, 4]
    f5_khz: float
    bandwidth: float
    nasals_khz: Float64  # [2, 4]
    nasal_zero_khz: float
    consonants_octaves: float  # shift of all fricatives and bursts
    consonant_level: float
    phones_per_second: float
    pause_share: float


@dataclass(frozen=True)
class Session:
    """What belongs to a recording session of a speaker: place, microphone, mood."""

    level_db: float  # RMS relative to full scale
    snr_db: float
    noise_slope: float  # amplitude of the noise ~ f^slope
    hum_share: float
    channel: Float32  # [taps] room and microphone
    f0_factor: float
    rate_factor: float


@dataclass(frozen=True)
class _Tracks:
    """What drives the synthesiser, one row per hop."""

    formants_khz: Float64  # [frames, 5]
    voicing: Float64  # [frames] amplitude of the glottal source
    frication: Float64  # [frames] amplitude of the noise
    noise_khz: Float64  # [frames] centre of the noise
    noise_octaves: Float64  # [frames] width of the noise
    nasality: Float64  # [frames] 0..1
    f0_hz: Float64  # [frames]


def draw_voice(rng: np.random.Generator) -> Voice:
    """A speaker. Half of the voices are low and long-tracted, half high and short-tracted, with overlap."""
    high = bool(rng.random() < 0.5)
    tract = (1.14 if high else 1.0) * np.exp(rng.normal(0, 0.08))
    vowels = _VOWELS_KHZ * tract * np.exp(rng.normal(0, 0.08, _VOWELS_KHZ.shape))
    return Voice(
        f0_hz=float((200.0 if high else 118.0) * np.exp(rng.normal(0, 0.2))),
        f0_range=float(rng.uniform(0.05, 0.16)),
        f0_fall=float(rng.uniform(0.05, 0.25)),
        jitter=float(rng.uniform(0.004, 0.02)),
        shimmer=float(rng.uniform(0.03, 0.15)),
        breath=float(10 ** rng.uniform(-2.0, -0.7)),
        open_quotient=float(rng.uniform(0.45, 0.75)),
        tilt_db_per_octave=float(rng.uniform(1.0, 6.0)),
        vowels_khz=vowels,
        f5_khz=float(_F5_KHZ * tract * np.exp(rng.normal(0, 0.05))),
        bandwidth=float(np.exp(rng.normal(0, 0.3))),
        nasals_khz=_NASALS_KHZ * tract * np.exp(rng.normal(0, 0.09, _NASALS_KHZ.shape)),
        nasal_zero_khz=float(rng.uniform(0.7, 1.6)),
        consonants_octaves=float(rng.normal(0, 0.22)),
        consonant_level=float(10 ** rng.uniform(-0.3, 0.3)),
        phones_per_second=float(rng.uniform(9.0, 14.0)),
        pause_share=float(rng.uniform(0.03, 0.10)),
    )


def draw_session(rng: np.random.Generator) -> Session:
    """A recording session."""
    return Session(
        level_db=float(rng.uniform(-32.0, -22.0)),
        snr_db=float(rng.uniform(20.0, 40.0)),
        noise_slope=float(rng.uniform(-0.7, 0.0)),
        hum_share=float(rng.uniform(0.0, 0.3)),
        channel=_draw_channel(rng),
        f0_factor=float(np.exp(rng.normal(0, 0.025))),
        rate_factor=float(np.exp(rng.normal(0, 0.06))),
    )


def synthesise(voice: Voice, session: Session, samples: int, rng: np.random.Generator) -> Float32:
    """An utterance of a speaker in a session, its phones drawn from `rng`: float32 [samples] in [-1, 1)."""
    frames = samples // _HOP + 2
    tracks = _draw_tracks(voice, session, frames, rng)
    voiced, noise = _excitation(voice, tracks, rng)
    speech = _filtered(voice, tracks, voiced, noise)[:samples]
    speech = signal.oaconvolve(speech, session.channel)[:samples]
    mixed = speech / np.sqrt(np.mean(speech**2)) + 10 ** (-session.snr_db / 20) * _background(session, samples, rng)
    mixed *= 10 ** (session.level_db / 20)
    unclipped: Float32 = (mixed / max(1.0, float(np.abs(mixed).max()) / 0.99)).astype(np.float32)
    return unclipped


def _draw_channel(rng: np.random.Generator) -> Float32:
    """Microphone (random smooth gain, band limits) and room (direct sound and decaying reverberation) as one FIR."""
    knots_hz = np.array([0.0, 300.0, 1000.0, 2000.0, 4000.0, 8000.0])
    gain_db = rng.normal(0, 2.5, len(knots_hz))
    low_hz, high_hz = rng.uniform(50, 180), rng.uniform(5500, 7900)
    gain_db[0] -= 20.0
    knots_hz = np.sort(np.append(knots_hz, [low_hz, high_hz]))
    gain_db = np.insert(gain_db, [1, len(gain_db) - 1], [0.0, rng.normal(0, 2.5)])
    gain_db[-1] -= 12.0
    microphone = signal.firwin2(255, knots_hz, 10 ** (gain_db / 20), fs=SAMPLE_RATE_HZ)
    t60_seconds, reverberant_db = rng.uniform(0.08, 0.3), rng.uniform(-28, -14)
    tail = np.arange(int(t60_seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    room = rng.standard_normal(len(tail)) * 10 ** (-3 * tail / t60_seconds)
    room *= 10 ** (reverberant_db / 20) / np.linalg.norm(room)
    room[0] = 1.0
    channel: Float32 = np.convolve(microphone, room).astype(np.float32)
    return channel


def _draw_tracks(voice: Voice, session: Session, frames: int, rng: np.random.Generator) -> _Tracks:
    """Phones in syllables (consonants, a vowel, consonants) with pauses, and the parameters they set, smoothed."""
    formants = np.empty((frames, 5))
    formants[:, 4] = voice.f5_khz
    voicing, frication, nasality = np.zeros(frames), np.zeros(frames), np.zeros(frames)
    noise_khz, noise_octaves = np.full(frames, 3.0), np.full(frames, 1.0)
    shift = 2.0**voice.consonants_octaves
    frames_per_phone = SAMPLE_RATE_HZ / _HOP / (voice.phones_per_second * session.rate_factor)
    place = voice.vowels_khz[rng.integers(len(voice.vowels_khz))]
    position = int(rng.integers(2, 12))  # silence at the beginning
    formants[:position, :4] = place
    for kind in _draw_phones(voice, frames, rng):
        length = max(2, round(frames_per_phone * float(rng.gamma(12.0, 1 / 12.0))))
        if kind == "vowel":
            length = round(1.5 * length)
        span = slice(position, min(frames, position + length))
        if kind == "vowel":
            place = voice.vowels_khz[rng.integers(len(voice.vowels_khz))] * np.exp(rng.normal(0, 0.02, 4))
            voicing[span] = rng.uniform(0.7, 1.0)
        elif kind == "nasal":
            place = voice.nasals_khz[rng.integers(len(voice.nasals_khz))]
            voicing[span], nasality[span] = 0.45, 1.0
        elif kind == "fricative":
            noise_khz[span], noise_octaves[span] = _FRICATIVES[rng.integers(len(_FRICATIVES))] * [shift, 1.0]
            frication[span] = 0.35 * voice.consonant_level * rng.uniform(0.6, 1.2)
        elif kind == "stop":
            burst = slice(max(span.start, span.stop - 2), span.stop)
            noise_khz[burst], noise_octaves[burst] = _BURSTS[rng.integers(len(_BURSTS))] * [shift, 1.0]
            frication[burst] = 0.7 * voice.consonant_level
        formants[span, :4] = place
        position = span.stop
        if position >= frames:
            break
    time = np.linspace(0, 1, frames)
    wander = _smoothed(rng.standard_normal(frames), 61)
    wander *= voice.f0_range / wander.std()
    return _Tracks(
        formants_khz=_smoothed(formants, 9),
        voicing=_smoothed(voicing, 5),
        frication=_smoothed(frication, 3),
        noise_khz=noise_khz,
        noise_octaves=noise_octaves,
        nasality=_smoothed(nasality, 5),
        f0_hz=voice.f0_hz * session.f0_factor * np.exp(wander + voice.f0_fall * (0.5 - time)),
    )


def _draw_phones(voice: Voice, count: int, rng: np.random.Generator) -> list[str]:
    """At least `count` phones: syllables of an onset, a vowel and sometimes a coda, and pauses between some."""
    phones: list[str] = []
    onsets = ("fricative", "stop", "nasal", "")
    while len(phones) < count:
        onset = onsets[rng.choice(4, p=[0.28, 0.32, 0.2, 0.2])]
        coda = onsets[rng.choice(4, p=[0.12, 0.1, 0.15, 0.63])]
        pause = "pause" if rng.random() < 3 * voice.pause_share else ""
        phones += [phone for phone in (onset, "vowel", coda, pause) if phone]
    return phones


def _excitation(voice: Voice, tracks: _Tracks, rng: np.random.Generator) -> tuple[Float32, Float32]:
    """Glottal source with breath, and frication noise: two rows of frames * hop samples."""
    frames = len(tracks.f0_hz)
    at_frame, at_sample = np.arange(frames) * _HOP, np.arange(frames * _HOP)
    unsteady = tracks.f0_hz * (1 + voice.jitter * rng.standard_normal(frames))
    phase = np.cumsum(np.interp(at_sample, at_frame, unsteady)) / SAMPLE_RATE_HZ
    cycle = phase.astype(np.int64)
    within = (phase - cycle) / voice.open_quotient  # 0..1 while the glottis is open
    # Flow rises as a raised cosine for two thirds of the open phase and falls as a quarter cosine; this is its slope.
    opening = 0.75 * np.pi * np.sin(1.5 * np.pi * within)
    closing = -1.5 * np.pi * np.sin(1.5 * np.pi * (within - 2 / 3))
    pulses = np.where(within < 2 / 3, opening, closing) * (within < 1)
    pulses *= 1 + voice.shimmer * rng.standard_normal(cycle[-1] + 1)[cycle]
    hiss = rng.standard_normal((2, frames * _HOP), dtype=np.float32)
    pulses += 8 * voice.breath * hiss[0] * (0.3 + (within < 1))
    voiced = pulses * np.interp(at_sample, at_frame, tracks.voicing)
    noise = hiss[1] * np.interp(at_sample, at_frame, tracks.frication)
    return voiced.astype(np.float32), noise.astype(np.float32)


def _filtered(voice: Voice, tracks: _Tracks, voiced: Float32, noise: Float32) -> Float32:
    """The excitation through vocal tract and constrictions: [frames * hop]."""
    tract = _tract_response(voice, tracks)
    octaves = np.log2(np.maximum(_BINS_KHZ, _BINS_KHZ[1])) - np.log2(tracks.noise_khz)[:, None].astype(np.float32)
    constriction = np.exp(-0.5 * (octaves / tracks.noise_octaves[:, None].astype(np.float32)) ** 2)
    spectra = _frames_spectra(voiced) * tract + _frames_spectra(noise) * constriction
    pieces = np.fft.irfft(spectra, axis=1).astype(np.float32).reshape(len(spectra), _FFT // _HOP, _HOP)
    out = np.zeros((len(spectra) + _FFT // _HOP, _HOP), dtype=np.float32)
    for k in range(_FFT // _HOP):
        out[k : k + len(spectra)] += pieces[:, k]
    before = (_FFT - _WINDOW) // 2 // _HOP + 1  # hops of response ahead of the first frame
    speech: Float32 = out[before : before + len(spectra)].reshape(-1)
    return speech


def _frames_spectra(samples: Float32) -> NDArray[np.complex64]:
    """Spectra of Hann-windowed frames centred in the FFT: [samples] -> [samples / hop, bins]."""
    padded = np.concatenate([np.zeros(_HOP, dtype=np.float32), samples])
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    around = (_FFT - _WINDOW) // 2
    window = signal.get_window("hann", _WINDOW).astype(np.float32)
    return np.fft.rfft(np.pad(frames * window, ((0, 0), (around, around))), axis=1).astype(np.complex64)


def _tract_response(voice: Voice, tracks: _Tracks) -> Float32:
    """Gain of the vocal tract and of the voice's spectral tilt, zero-phase: [frames, bins]."""
    f2 = _BINS_KHZ**2
    power = np.ones((len(tracks.f0_hz), len(f2)), dtype=np.float32)
    widths = _BANDWIDTHS_KHZ * voice.bandwidth
    for k in range(5):
        centre2 = (tracks.formants_khz[:, k, None] ** 2).astype(np.float32)
        # Nasals are damped: their energy goes into the soft walls of the nose.
        width2 = ((widths[k] * (1 + tracks.nasality[:, None])) ** 2).astype(np.float32)
        power *= centre2**2 / ((centre2 - f2) ** 2 + width2 * f2)
    zero2 = np.float32(voice.nasal_zero_khz**2)
    zero = np.log(((zero2 - f2) ** 2 + 0.04 * f2) / zero2**2)
    power *= np.exp(tracks.nasality[:, None].astype(np.float32) * zero.clip(-4.0, 3.0))
    tilt = (1 + f2 / 0.25) ** np.float32(-voice.tilt_db_per_octave / 6.02)
    gain: Float32 = np.sqrt(power * tilt)
    return gain


def _background(session: Session, samples: int, rng: np.random.Generator) -> Float64:
    """Noise of unit RMS: coloured, with a share of mains hum."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    hertz = np.arange(len(spectrum)) * (SAMPLE_RATE_HZ / samples)
    noise = np.fft.irfft(spectrum * np.maximum(hertz, 40.0) ** session.noise_slope, samples)
    seconds = np.arange(samples) / SAMPLE_RATE_HZ
    hum = sum(np.sin(2 * np.pi * 50.0 * k * seconds + rng.uniform(0, 2 * np.pi)) / k for k in (1, 2, 3))
    mixed = noise / noise.std() + session.hum_share * hum
    return np.asarray(mixed / mixed.std(), dtype=np.float64)


def _smoothed(track: Float64, width: int) -> Float64:
    """Moving average over frames with a Hann window of odd `width`; the ends are held."""
    window = np.hanning(width + 2)[1:-1]
    window /= window.sum()
    held = np.pad(track, [(width // 2, width // 2)] + [(0, 0)] * (track.ndim - 1), mode="edge")
    return np.asarray(signal.convolve(held, window.reshape(-1, *[1] * (track.ndim - 1)), mode="valid"))
