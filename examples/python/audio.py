"""What a WAV file sounds like: tempo, key and spectral features, with numpy."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_FRAME = 2048
_HOP = 256
_TONICS = ["C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"]
_PCM = 1
_ADDRESSED = 0x7079

# Krumhansl and Kessler, 1982: how well each semitone above the tonic fits a key.
_PROFILES = {
    "major": [6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88],
    "minor": [6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17],
}


class BadFileError(ValueError):
    """What is wrong with a file."""


class Analysis(TypedDict):
    """Means over time, frequencies in Hz; beats a minute, or None where nothing beats."""

    seconds: float
    tempo: float | None
    key: str
    centroid: float
    rolloff: float
    bandwidth: float
    zero_crossings: float
    rms: float


def analyse(path: str) -> Analysis:
    """Reads a WAV file of 16 bits and analyses it."""
    samples, rate = read(path)
    if samples.size < 2 * _FRAME:
        raise BadFileError(f"{samples.size} samples are too few; {2 * _FRAME} are the least")
    spectrum = _spectrum(samples)
    frequencies: Array = np.fft.rfftfreq(_FRAME, 1 / rate).astype(np.float64)
    centroid, rolloff, bandwidth = _shape(spectrum, frequencies)
    return {
        "seconds": samples.size / rate,
        "tempo": _tempo(spectrum, rate / _HOP),
        "key": _key(samples, rate),
        "centroid": centroid,
        "rolloff": rolloff,
        "bandwidth": bandwidth,
        "zero_crossings": float(np.mean(np.signbit(samples[1:]) != np.signbit(samples[:-1]))),
        "rms": float(np.sqrt(np.mean(samples**2))),
    }


def read(path: str) -> tuple[Array, int]:
    """The samples of a WAV file, between -1 and 1, channels mixed; and their rate."""
    chunks = _chunks(Path(path).read_bytes())
    if len(chunks.get(b"fmt ", b"")) < 16 or b"data" not in chunks:
        raise BadFileError("it has no format or no data")
    code, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunks[b"fmt "])
    data = chunks[b"data"]
    if code == _ADDRESSED:
        data = _decode_in_c(data)
    elif (code, bits) != (_PCM, 16) or channels == 0 or rate == 0:
        raise BadFileError(f"only PCM of 16 bits is read, not format {code:#x} of {bits} bits")
    if len(data) % (2 * channels):
        raise BadFileError(f"{len(data)} bytes are no whole number of samples")
    samples = np.frombuffer(data, "<i2").reshape(-1, channels).mean(axis=1)
    return samples / 32_768, rate


def _chunks(file: bytes) -> dict[bytes, bytes]:
    if file[:4] != b"RIFF" or file[8:12] != b"WAVE":
        raise BadFileError(f"it does not begin as a WAV file does, but with {file[:12]!r}")
    chunks, at = {}, 12
    while at + 8 <= len(file):
        name, size = struct.unpack_from("<4sI", file, at)
        if at + 8 + size > len(file):
            left = len(file) - at - 8
            raise BadFileError(f"its chunk {name!r} has {size} bytes, and {left} are there")
        chunks[name] = file[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    return chunks


def _decode_in_c(data: bytes) -> bytes:
    """Stands in for a decoder in C with a bug: it trusts the file about where its samples are."""
    address, size = struct.unpack_from("<QI", data)
    return ctypes.string_at(address, size)


def _spectrum(samples: Array, frame: int = _FRAME, hop: int = _HOP) -> Array:
    """Magnitudes: a row for each moment, a column for each frequency."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, frame)[::hop]
    return np.abs(np.fft.rfft(frames * np.hanning(frame)))


def _shape(spectrum: Array, frequencies: Array) -> tuple[float, float, float]:
    """Centroid, rolloff (85 % of the magnitude lies below) and bandwidth."""
    heard = spectrum[spectrum.sum(axis=1) > 1e-3 * spectrum.sum(axis=1).max()]
    if heard.size == 0:
        return 0.0, 0.0, 0.0
    share = heard / heard.sum(axis=1, keepdims=True)
    centroid = share @ frequencies
    rolloff = frequencies[np.argmax(np.cumsum(share, axis=1) >= 0.85, axis=1)]
    spread = (frequencies[None, :] - centroid[:, None]) ** 2
    bandwidth = np.sqrt(np.sum(share * spread, axis=1))
    return float(centroid.mean()), float(rolloff.mean()), float(bandwidth.mean())


def _tempo(spectrum: Array, frames_per_second: float) -> float | None:
    """The lag at which the onsets repeat most, with a liking for 120 beats a minute."""
    louder = np.diff(np.log1p(100 * spectrum / max(spectrum.max(), 1e-9)), axis=0)
    onsets = np.maximum(louder, 0).mean(axis=1)
    if onsets.max() < 0.05:
        return None
    repeats = _autocorrelation(onsets - onsets.mean())
    lags = np.arange(int(frames_per_second * 60 / 240), int(frames_per_second * 60 / 40))
    lags = lags[lags < repeats.size // 4]
    if lags.size == 0:
        return None
    liking = np.exp(-0.5 * np.log2(60 * frames_per_second / lags / 120) ** 2)
    beat = int(lags[np.argmax(repeats[lags] * liking)])
    # Four beats are measured to a frame, one is not.
    near = np.arange(4 * beat - 4, 4 * beat + 5)
    four = near[np.argmax(repeats[near])]
    return float(60 * frames_per_second * 4 / four)


def _autocorrelation(signal: Array) -> Array:
    power = np.abs(np.fft.rfft(signal, 2 * signal.size)) ** 2
    repeats = np.fft.irfft(power)[: signal.size]
    # Long lags have fewer pairs.
    return repeats / np.arange(signal.size, 0, -1)


def _key(samples: Array, rate: int) -> str:
    """The key whose profile the pitch classes fit best, such as "A minor"."""
    chroma = _chroma(samples, rate)
    fits = {
        f"{_TONICS[tonic]} {mode}": float(np.corrcoef(chroma, np.roll(profile, tonic))[0, 1])
        for mode, profile in _PROFILES.items()
        for tonic in range(12)
    }
    return max(fits, key=lambda key: fits[key])


def _chroma(samples: Array, rate: int) -> Array:
    """How much of each pitch class there is, from long frames that tell semitones apart."""
    frame = 4 * _FRAME
    power = (_spectrum(np.pad(samples, frame // 2), frame, frame // 4) ** 2).sum(axis=0)
    frequencies = np.fft.rfftfreq(frame, 1 / rate)
    heard = (frequencies > 80) & (frequencies < 2000)
    pitches = np.round(12 * np.log2(frequencies[heard] / 261.63)).astype(int) % 12
    chroma: Array = np.bincount(pitches, weights=power[heard], minlength=12).astype(np.float64)
    return chroma
