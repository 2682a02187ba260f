"""Wind speeds that are called strong."""

from __future__ import annotations

from wsdcast.data.sources.units import SPEEDS

BEAUFORT = (0.3, 1.6, 3.4, 5.5, 8.0, 10.8, 13.9, 17.2, 20.8, 24.5, 28.5, 32.7)
"""Wind speeds in m/s at which Beaufort 1 to 12 begin (WMO-No. 306, Manual on Codes, volume I.1, part A, section E)."""
THRESHOLDS = (BEAUFORT[5], BEAUFORT[7], BEAUFORT[9])
"""Wind speeds in m/s at which Beaufort 6, 8 and 10 begin."""


def threshold_in_words(threshold: float) -> str:
    """Return a threshold as text, with its number on the Beaufort scale if one begins there, or in knots if that is a whole number."""
    knots = threshold / SPEEDS["kn"]
    beaufort = f" (Beaufort {BEAUFORT.index(threshold) + 1})" if threshold in BEAUFORT else ""
    in_knots = f" ({round(knots)} kn)" if threshold > 0 and abs(knots - round(knots)) < 1e-9 else ""
    return f"{threshold:.4g} m/s{beaufort}{in_knots}"
