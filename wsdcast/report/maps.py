"""Maps of the globe on its own grid."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from wsdcast.data.grid import Grid

# Pictures are written to files; no window is ever opened.
matplotlib.use("Agg")


def wind_speed(wind: NDArray[np.floating]) -> NDArray[np.floating]:
    """Wind speed (..., latitude, longitude) of (..., channel, latitude, longitude)."""
    return np.hypot(wind[..., 0, :, :], wind[..., 1, :, :])


def draw_map(
    axis: Axes, field: NDArray[np.floating], grid: Grid, title: str, low: float, high: float, colours: str = "viridis"
) -> AxesImage:
    """Draw (latitude, longitude) with north at the top and 0 E at the left edge."""
    spacing = 360 / grid.longitude.size
    extent = (grid.longitude[0] - spacing / 2, grid.longitude[-1] + spacing / 2, -90, 90)
    image = axis.imshow(field, extent=extent, vmin=low, vmax=high, cmap=colours, aspect="equal", interpolation="nearest")
    axis.set_title(title, fontsize=9)
    axis.set_xticks([0, 90, 180, 270], ["0°", "90°E", "180°", "90°W"], fontsize=6)
    axis.set_yticks([-60, 0, 60], ["60°S", "0°", "60°N"], fontsize=6)
    return image
