"""Warm-start diffusion for weather ensembles: the stages and what follows them as functions, with the defaults of their commands.

:func:`load_recipe` reads a recipe, whose keys ``changed`` changes; errors that a user can cause are :class:`UserError`.
"""

from __future__ import annotations

import os
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsdcast.output.convert import convert
    from wsdcast.output.products import products
    from wsdcast.output.station_scores import score_stations
    from wsdcast.runs.errors import UserError
    from wsdcast.study.weather import study_nfe
    from wsdcast.weather.pipeline import run
    from wsdcast.weather.recipe import load_recipe
    from wsdcast.weather.stages.check import check
    from wsdcast.weather.stages.export import export_model
    from wsdcast.weather.stages.forecast import forecast
    from wsdcast.weather.stages.forecast_page import forecast_page
    from wsdcast.weather.stages.plot import plot
    from wsdcast.weather.stages.prepare import prepare
    from wsdcast.weather.stages.rollout import rollout
    from wsdcast.weather.stages.score import score, score_pair
    from wsdcast.weather.stages.score_forecast import score_forecast
    from wsdcast.weather.stages.train import train

__all__ = [
    "UserError",
    "check",
    "convert",
    "export_model",
    "forecast",
    "forecast_page",
    "load_recipe",
    "plot",
    "prepare",
    "products",
    "rollout",
    "run",
    "score",
    "score_forecast",
    "score_pair",
    "score_stations",
    "study_nfe",
    "train",
]
__version__ = metadata.version("wsdcast")

# A thread of torch's that waits for another spins by default: beside any other process on the machine it takes the core from the thread
# that it waits for, and a step of training takes several times as long (docs/training.md). The library of threads reads this when torch is
# loaded, which nothing above does.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Without this cuBLAS is not deterministic. torch reads it once, at the first product of matrices on a GPU. If it were set later,
# `rollout(deterministic=True)` would end in an error in a process that has used the GPU before.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

_MODULES = {"run": "weather.pipeline", "study_nfe": "study.weather", "products": "output.products", "convert": "output.convert"} | {
    stage: f"weather.stages.{stage}" for stage in ("check", "prepare", "train", "rollout", "score", "forecast_page", "plot")
}
_MODULES |= {"export_model": "weather.stages.export", "forecast": "weather.stages.forecast", "score_stations": "output.station_scores"}
_MODULES |= {"load_recipe": "weather.recipe", "UserError": "runs.errors"}
_MODULES |= {"score_pair": "weather.stages.score", "score_forecast": "weather.stages.score_forecast"}


def __getattr__(name: str) -> Any:
    # Imported on first use: torch takes seconds to load, and `wsdcast --help` does not need it.
    if name in _MODULES:
        return getattr(import_module(f"wsdcast.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'wsdcast' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
