"""Names that recipes, run directories and the command line share: artefacts, priors, solvers, grids of flow times, figures."""

from __future__ import annotations

from typing import Literal

ANALYSIS, MOMENTS, GENERATOR = "analysis.zarr", "moments", "generator"
PREDICTIONS, STATISTICS = "predictions", "statistics"
FORECAST, MOMENTS_FORECAST, ANIMATION = "forecast.zarr", "moments_forecast.zarr", "forecast.gif"
SCORES, SCORES_TABLE, REPORT = "scores.nc", "scores.csv", "report.html"
STUDY, STUDY_PAGE = "study.nc", "study.html"
IMAGES, CLASSIFIER, SAMPLES = "images", "classifier", "samples"

PriorName = Literal["warm", "standard", "features-only", "mean-only", "unblended", "plain-blend", "climatology", "given"]
"""Priors: where flow matching starts, and what the generator reads of the moments (docs/method.md)."""

ImagePriorName = Literal["warm", "standard", "features-only", "mean-only", "unblended", "plain-blend", "climatology", "class-climatology"]
"""Priors of the image benchmark."""

GridName = Literal["uniform", "quadratic", "log-snr", "edm"]
"""Grids of the flow times between which a solver steps."""

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
"""Solvers of the flow; ``auto`` chooses a solver and its grid."""

FigureName = Literal["curves", "regions", "ranks", "reliability", "spectra", "tails", "maps", "plume", "animation"]
"""Figures that ``wsdcast plot`` draws (docs/plot.md)."""

MOMENTS_ALONE = "moments alone"
"""Name in tables and figures of the forecast that samples the predicted moments, without a generator."""

WITHOUT_NETWORK = ("standard", "climatology", "class-climatology", "given")
"""Priors whose moments do not come from a trained moments network."""
