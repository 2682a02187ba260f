"""The names that recipes, run directories and the command line share."""

from __future__ import annotations

from typing import Literal

ANALYSIS, MOMENTS, GENERATOR = "analysis.zarr", "moments", "generator"
PREDICTIONS, STATISTICS = "predictions", "statistics"
FORECAST, MOMENTS_FORECAST, ANIMATION = "forecast.zarr", "moments_forecast.zarr", "forecast.gif"
SCORES, SCORES_TABLE, REPORT = "scores.nc", "scores.csv", "report.html"
STUDY, STUDY_PAGE = "study.nc", "study.html"
IMAGES, CLASSIFIER, SAMPLES = "images", "classifier", "samples"

PriorName = Literal["warm", "standard", "features-only", "mean-only", "unblended", "plain-blend", "climatology", "given"]
"""Where flow matching starts, and what the generator is told (docs/method.md)."""

ImagePriorName = Literal["warm", "standard", "features-only", "mean-only", "unblended", "plain-blend", "climatology", "class-climatology"]
"""The same for images."""

GridName = Literal["uniform", "quadratic", "log-snr", "edm"]
"""Flow times between which a solver steps."""

SolverName = Literal[
    "auto",
    "euler",
    "midpoint",
    "heun2",
    "heun3",
    "rk4",
    "ab2",
    "ab3",
    "ab4",
    "dpm1",
    "dpm2",
    "dpm3",
    "dpm3-v3",
    "explicit_adams",
    "implicit_adams",
]
"""Solvers; ``auto`` chooses one with its grid."""

FigureName = Literal["curves", "regions", "ranks", "reliability", "spectra", "tails", "maps", "plume", "animation"]
"""What ``wsdcast plot`` draws (docs/plot.md)."""

MOMENTS_ALONE = "moments alone"
"""What the predicted moments by themselves are called in tables and figures."""

WITHOUT_NETWORK = ("standard", "climatology", "class-climatology", "given")
"""Priors whose moments no network of ours predicts."""
