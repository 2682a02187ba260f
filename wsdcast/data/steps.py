"""The time step of every record and forecast."""

from __future__ import annotations

from datetime import timedelta

import numpy as np

from wsdcast.runs import times

STEP = np.timedelta64(times.STEP // timedelta(hours=1), "h")
"""6 h."""
