"""Speech from text, as WAV files, by espeak-ng. A Voice is loaded once, then speaks."""

from __future__ import annotations

import ctypes
import os
import wave
from concurrent.futures import ThreadPoolExecutor
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_short, c_size_t, c_uint, c_void_p
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO

# From speak_lib.h.
_SYNCHRONOUS = 2
_RETURN_ERRORS = 0x8000
_CHARACTERS = 1
_UTF8 = 1
_RATE = 1
_PITCH = 3

_Listener = CFUNCTYPE(c_int, POINTER(c_short), c_int, c_void_p)

_SIGNATURES: dict[str, tuple[type, ...]] = {
    "espeak_Initialize": (c_int, c_int, c_char_p, c_int),
    "espeak_SetSynthCallback": (_Listener,),
    "espeak_SetVoiceByName": (c_char_p,),
    "espeak_SetParameter": (c_int, c_int, c_int),
    "espeak_Synth": (
        *(c_char_p, c_size_t, c_uint, c_int, c_uint, c_uint),
        *(POINTER(c_uint), c_void_p),
    ),
}


class SpeechError(Exception):
    """What espeak-ng refused, and why."""


class Voice:
    """A voice of espeak-ng, such as "en-us", "en" or "de". A process has one at a time."""

    def __init__(self, name: str = "en-us") -> None:
        self._espeak, data = _library()
        self._samples = bytearray()
        self._stopped = False
        self._listener = _Listener(self._listen)  # espeak-ng keeps its address
        # A deadline raises an exception in the main thread. In a function that C called, ctypes
        # would print it and go on: so C calls back on this thread, and the main one waits.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="speech")

        rate = self._espeak.espeak_Initialize(_SYNCHRONOUS, 0, data, _RETURN_ERRORS)
        if rate <= 0:
            raise SpeechError("espeak-ng did not start: its data are not where it looks for them")
        self.sample_rate: int = rate
        self._espeak.espeak_SetSynthCallback(self._listener)
        if self._espeak.espeak_SetVoiceByName(name.encode()) != 0:
            raise SpeechError(f"espeak-ng has no voice {name!r}")

    def say(self, text: str, *, words_per_minute: int = 165, pitch: int = 50) -> bytes:
        """The text, spoken: a WAV file of 16 bits, mono."""
        speech = self._thread.submit(self._speak, text, words_per_minute, pitch)
        try:
            return speech.result()
        except BaseException:
            self._stopped = True
            raise

    def _speak(self, text: str, words_per_minute: int, pitch: int) -> bytes:
        self._samples.clear()
        self._stopped = False
        self._espeak.espeak_SetParameter(_RATE, words_per_minute, 0)
        self._espeak.espeak_SetParameter(_PITCH, pitch, 0)
        code = text.encode() + b"\0"
        failed = self._espeak.espeak_Synth(code, len(code), 0, _CHARACTERS, 0, _UTF8, None, None)
        if failed:
            raise SpeechError(f"espeak-ng could not speak {text[:40]!r} (error {failed})")
        return self._wav()

    def _listen(self, samples: ctypes._Pointer[c_short], count: int, _events: int | None) -> int:
        if samples and count > 0:
            self._samples += ctypes.string_at(samples, 2 * count)
        return int(self._stopped)

    def _wav(self) -> bytes:
        file = BytesIO()
        with wave.open(file, "wb") as wav:
            wav.setnchannels(1)
            wav.setsampwidth(2)
            wav.setframerate(self.sample_rate)
            wav.writeframes(self._samples)
        return file.getvalue()


def _library() -> tuple[ctypes.CDLL, bytes | None]:
    """The espeak-ng of the wheel espeakng-loader, else the system's; and where its data are."""
    name, data = "libespeak-ng.so.1", None
    if find_spec("espeakng_loader"):
        loader = import_module("espeakng_loader")
        name, data = loader.get_library_path(), os.fsencode(loader.get_data_path())
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        raise SpeechError(f"no espeak-ng ({error}): apt-get install libespeak-ng1") from error
    for function, arguments in _SIGNATURES.items():
        getattr(library, function).argtypes = arguments
    return library, data
