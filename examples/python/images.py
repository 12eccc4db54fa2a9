"""Steps of an image pipeline on arrays of height, width and three colours.

Those that end in `_of_bytes` do the same for who sends bytes, and gets bytes.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import erlang

Pixels = NDArray[np.uint8]
Shape = tuple[int, int, int]


def photo(height: int, width: int) -> Any:
    """Rings of light, as large as a camera takes them."""
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    pixels = np.empty((height, width, 3), np.uint8)
    for colour, size in enumerate((9.0, 10.0, 11.0)):
        distance = np.hypot(x.astype(np.float32), y.astype(np.float32))
        pixels[:, :, colour] = 127 + 120 * np.sin(size * distance)
    # Nobody here writes to it again: Elixir may have the memory itself.
    return erlang.array(pixels, copy=False)


def upper_half(pixels: Pixels) -> Any:
    """The same memory, up to its middle."""
    return erlang.array(pixels[: len(pixels) // 2])


def upside_down(pixels: Pixels) -> Any:
    """The same memory, from its end to its beginning."""
    return erlang.array(pixels[::-1, ::-1])


def brightness(pixels: Pixels) -> float:
    """The mean of every sixteenth pixel in either direction, in per cent."""
    return float(pixels[::16, ::16].mean() / 2.55)


def thumbnail(pixels: Pixels, width: int) -> bytes:
    """A PNG file."""
    step = max(pixels.shape[1] // width, 1)
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[::step, ::step])).save(file, "PNG")
    return file.getvalue()


def upper_half_of_bytes(rgb: bytes, shape: Shape) -> bytes:
    pixels = _pixels(rgb, shape)
    return pixels[: len(pixels) // 2].tobytes()


def upside_down_of_bytes(rgb: bytes, shape: Shape) -> bytes:
    return _pixels(rgb, shape)[::-1, ::-1].tobytes()


def brightness_of_bytes(rgb: bytes, shape: Shape) -> float:
    return brightness(_pixels(rgb, shape))


def thumbnail_of_bytes(rgb: bytes, shape: Shape, width: int) -> bytes:
    return thumbnail(_pixels(rgb, shape), width)


def _pixels(rgb: bytes, shape: Shape) -> Pixels:
    return np.frombuffer(rgb, np.uint8).reshape(shape)
