"""Tunes to analyse, written as WAV files: plucked notes in a known key, at a known tempo."""

from __future__ import annotations

import wave

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]

RATE = 22_050
TONICS = ["C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"]
SCALES = {"major": [0, 2, 4, 5, 7, 9, 11], "minor": [0, 2, 3, 5, 7, 8, 10]}

# Degrees of the scale, for each bar: the notes of the melody, and the chord under them.
_BARS = [
    ([0, 2, 4, 2], [0, 2, 4]),
    ([3, 5, 7, 5], [3, 5, 7]),
    ([4, 6, 8, 6], [4, 6, 8]),
    ([7, 4, 2, 0], [0, 2, 4]),
]


def write(path: str, tonic: str, mode: str, beats_per_minute: float, *, bars: int = 8) -> float:
    """Writes a tune of four beats a bar; its length in seconds."""
    beat = 60 / beats_per_minute
    samples = np.zeros(int(RATE * (4 * bars * beat + 1)))
    for number in range(bars):
        melody, chord = _BARS[number % len(_BARS)]
        start = 4 * number * beat
        for index, degree in enumerate(melody):
            note = _pluck(_pitch(tonic, mode, degree + 7), beat, 0.5)
            _add(samples, start + index * beat, note)
        for degree in chord:
            _add(samples, start, _pluck(_pitch(tonic, mode, degree), 4 * beat, 0.25))
    save(path, samples)
    return samples.size / RATE


def tone(path: str, frequency: float, seconds: float) -> float:
    """Writes a steady sine, which has neither beats nor a key."""
    save(path, 0.5 * np.sin(2 * np.pi * frequency * np.arange(int(RATE * seconds)) / RATE))
    return seconds


def save(path: str, samples: Samples) -> None:
    """Writes samples as a WAV file of 16 bits, mono, at full volume."""
    loudest = max(float(np.abs(samples).max()), 1e-9)
    with wave.open(path, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(RATE)
        wav.writeframes((samples * (32_000 / loudest)).astype("<i2").tobytes())


def _pitch(tonic: str, mode: str, degree: int) -> float:
    """The frequency of a degree of the scale, whose 0 is the tonic below middle C."""
    octave, step = divmod(degree, 7)
    semitones = TONICS.index(tonic) + SCALES[mode][step] + 12 * octave
    return 130.81 * float(2 ** (semitones / 12))


def _pluck(frequency: float, seconds: float, volume: float) -> Samples:
    time = np.arange(int(RATE * seconds)) / RATE
    overtones = sum(np.sin(2 * np.pi * n * frequency * time) / n**2 for n in range(1, 6))
    return volume * overtones * np.minimum(time / 0.005, 1) * np.exp(-3 * time)


def _add(samples: Samples, start: float, note: Samples) -> None:
    first = int(RATE * start)
    samples[first : first + note.size] += note
