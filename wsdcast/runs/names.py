"""Names that recipes, run directories and the command line share: artefacts, priors, solvers, grids of flow times, figures."""

from __future__ import annotations

from typing import Literal

ANALYSIS, MOMENTS, GENERATOR = "analysis.zarr", "moments", "generator"
PREDICTIONS, FEW_STEPS, FINE_TUNED = "predictions", "few-steps", "fine-tuned"
FORECAST, PAST_ERRORS_FORECAST, ANIMATION = "forecast.zarr", "past_errors_forecast.zarr", "forecast.gif"
INITIAL_STATES = "initial_states.nc"
FORECAST_PAGE, MODEL_CARD = "forecast.html", "model-card.md"
PRODUCTS, PLACES = "products.nc", "places.csv"
SCORES, SCORES_TABLE, REPORT = "scores.nc", "scores.csv", "report.html"
STUDY, STUDY_PAGE = "study.nc", "study.html"
IMAGES, CLASSIFIER, SAMPLES = "images", "classifier", "samples"
COMMANDS = {
    **dict.fromkeys((ANALYSIS, IMAGES), "prepare"),
    **dict.fromkeys((MOMENTS, GENERATOR, PREDICTIONS, FEW_STEPS, FINE_TUNED), "train"),
    **dict.fromkeys((FORECAST, PAST_ERRORS_FORECAST), "rollout"),
    SAMPLES: "sample",
    **dict.fromkeys((SCORES, CLASSIFIER), "score"),
    STUDY: "study nfe",
}
"""The command that makes an artefact."""

SharedPriorName = Literal["warm", "standard", "features-only", "mean-only", "unblended", "plain-blend", "climatology"]
PriorName = Literal[SharedPriorName, "persistence", "given"]
"""Where flow matching starts, and what the generator reads of the moments (docs/method.md)."""

ImagePriorName = Literal[SharedPriorName, "class-climatology"]
"""The same for images."""

GridName = Literal["uniform", "quadratic", "log-snr", "edm", "sgmse"]
"""Flow times between which a solver steps (:data:`wsdcast.warmstart.evaluations.GRIDS`)."""

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
    "dpm2",
    "dpm3",
    "explicit_adams",
    "implicit_adams",
    "sde1",
    "sde2",
]
"""Solvers (:data:`wsdcast.warmstart.evaluations.ALL_SOLVERS`); ``auto`` chooses one with its grid."""

TORCHDIFFEQ: tuple[SolverName, ...] = ("explicit_adams", "implicit_adams")
"""Fixed-step methods that are left to that library, for equal steps. Implicit ones make one correction, so that their cost is known."""

SAME_SOLVER: dict[str, SolverName] = {"fixed_adams": "implicit_adams", "dpm1": "euler", "dpm3-v3": "dpm3"}
"""Solvers that are gone, and the solver to use instead: the same one, or for ``dpm3-v3`` the one without its statistics."""

PathName = Literal["straight", "blur-noise", "blur"]
"""Paths from noise to data (docs/method.md)."""

FigureName = Literal["curves", "regions", "ranks", "reliability", "spectra", "tails", "targets", "maps", "plume", "animation"]
"""Figures that ``wsdcast plot`` draws (docs/plot.md)."""

MOMENTS_ALONE = "moments alone"
"""Name in tables and figures of images that are sampled from the predicted moments, without a generator."""

PAST_ERRORS = "moments, past errors"
"""Name in tables and figures of the forecast that samples the predicted moments with noise from past errors, without a generator."""

CALIBRATED = "warm, calibrated"
"""Name in tables and figures of the warm start at the warmth at which its moments are calibrated."""

WITHOUT_NETWORK = ("standard", "climatology", "class-climatology", "persistence", "given")
"""Priors whose moments do not come from a trained moments network."""
