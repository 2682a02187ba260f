"""Wind speeds that are called strong."""

from __future__ import annotations

THRESHOLDS = (10.8, 17.2, 24.5)
"""Wind speeds in m/s at which Beaufort 6, 8 and 10 begin (WMO-No. 306, Manual on Codes, volume I.1, part A, section E)."""
