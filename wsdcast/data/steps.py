"""The time step of all records and forecasts, as numpy has it."""

from __future__ import annotations

from datetime import timedelta

import numpy as np

from wsdcast.runs import times

STEP = np.timedelta64(times.STEP // timedelta(hours=1), "h")
"""6 h."""
