"""Pictures as raw RGB bytes, three for each pixel, row by row; what a step takes and gives."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Size = tuple[int, int]


def resize(rgb: bytes, size: Size, to: Size) -> bytes:
    """The picture in another size."""
    return _image(rgb, size).resize(to, Image.Resampling.LANCZOS).tobytes()


def blur(rgb: bytes, size: Size, radius: float = 2.0) -> bytes:
    """The picture, as if seen through frosted glass."""
    return _image(rgb, size).filter(ImageFilter.GaussianBlur(radius)).tobytes()


def edges(rgb: bytes, size: Size) -> bytes:
    """Sobel's edge map: bright where brightness changes."""
    width, height = size
    grey = np.frombuffer(rgb, np.uint8).reshape(height, width, 3).mean(axis=2)
    padded = np.pad(grey, 1, mode="edge")
    strength = np.hypot(_slope(padded), _slope(padded.T).T)
    bright = 255 * np.sqrt(strength / max(float(strength.max()), 1.0))
    return np.repeat(bright.astype(np.uint8)[:, :, None], 3, axis=2).tobytes()


def side_by_side(pictures: list[bytes], size: Size, *, gap: int = 8) -> bytes:
    """The pictures in one row, as a PNG file."""
    width, height = size
    row = Image.new("RGB", ((width + gap) * len(pictures) - gap, height), "white")
    for index, picture in enumerate(pictures):
        row.paste(_image(picture, size), (index * (width + gap), 0))
    file = BytesIO()
    row.save(file, "PNG")
    return file.getvalue()


def _image(rgb: bytes, size: Size) -> Image.Image:
    return Image.frombytes("RGB", size, rgb)


def _slope(grey: NDArray[np.float64]) -> NDArray[np.float64]:
    change = grey[:, 2:] - grey[:, :-2]
    return change[:-2] + 2 * change[1:-1] + change[2:]
