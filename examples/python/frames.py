"""What examples/dataframe.exs leaves to Python: drawing."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import matplotlib

matplotlib.use("Agg")  # without a screen
from matplotlib import pyplot

if TYPE_CHECKING:
    import polars


def bars(frame: polars.DataFrame, x: str, y: str) -> bytes:
    """Draw one column over another, as a PNG."""
    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    try:
        axes.bar(frame[x].to_list(), frame[y].to_list())
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=120)
        return picture.getvalue()
    finally:
        pyplot.close(figure)
