"""Where the networks and the initial states of a rollout come from: a run directory, or a model file and a source of analyses."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wsdcast.data.sources.blocks import close_all
from wsdcast.data.store.analysis import Analysis, open_analysis
from wsdcast.runs.artefact import require, resolve
from wsdcast.runs.errors import UserError
from wsdcast.runs.inputs import address_given
from wsdcast.runs.names import ANALYSIS, FINE_TUNED, GENERATOR, MOMENTS
from wsdcast.runs.overrides import Overridden, overridden
from wsdcast.runs.recipes import digest_of
from wsdcast.warmstart.prior import Moments
from wsdcast.weather.forecast.initial_states import difference_in_words, initial_states
from wsdcast.weather.forecast.initial_times import LATEST, starts_of, without_latest
from wsdcast.weather.model_file import read_model
from wsdcast.weather.priors import require_model
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.solver_choice import without_auto
from wsdcast.weather.trained import Trained, assembled, trained


@dataclass(frozen=True)
class Origin:
    """What a rollout starts from.

    Attributes:
        recipe: the recipe in force, with the solver and the initial times decided.
        directory: the run directory that the forecast is written to.
        record: has the states at the initial times, and the past states that the networks read.
        networks: the trained networks.
        trained_from: the first time that the networks were trained on.
        fingerprint: a digest of the model file and the initial states, for the stamp; empty for a run directory.
        card: the model card of a model file; empty for a run directory.
        errors: the past errors of a model file without a generator, (error, variable, latitude, longitude).
        facts: for the summary.
    """

    recipe: Recipe
    directory: Path
    record: Analysis
    networks: Trained
    trained_from: np.datetime64
    fingerprint: str = ""
    card: str = ""
    errors: Tensor | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def is_model_file(self) -> bool:
        """Whether the networks are of a model file, not of the run directory."""
        return bool(self.fingerprint)

    @cached_property
    def starts(self) -> NDArray[np.intp]:
        """Indices in the record of the initial times, with the errors of :func:`wsdcast.weather.forecast.initial_times.starts_of`."""
        return starts_of(self.recipe, self.record)

    @property
    def initial_times(self) -> NDArray[np.datetime64]:
        """The initial times."""
        return self.record.times[self.starts]

    @property
    def kept_variables(self) -> tuple[str, ...]:
        """The variables that are stored, in the order of the record.

        Raises:
            UserError: if one of them is not forecast.
        """
        chosen, forecast = self.recipe.rollout.variables, self.record.variables
        if chosen is None:
            return forecast
        if unknown := [name for name in chosen if name not in forecast]:
            raise UserError(f"rollout.variables: {unknown[0]} is not forecast, only {', '.join(forecast)}")
        return tuple(name for name in forecast if name in chosen)


def of_run(
    recipe: str | Path | Recipe | Overridden | None, run: str | Path | None, changes: Mapping[str, Any], moments: Moments | None
) -> Origin:
    """The networks and the prepared record of a run directory.

    ``changes`` are keys of the recipe that options change, and ``moments`` is the model of a user for the prior ``given``.

    Raises:
        UserError: if an artefact is missing or was made from another recipe, or the solver ``auto`` cannot be decided.
    """
    resolved, directory = resolve(recipe, run, Recipe, FINE_TUNED, **changes)
    if changes.get("rollout__starts") is not None and resolved.rollout.start is not None:
        raise UserError(f"--starts {changes['rollout__starts']}: the initial times are already given, {resolved.rollout.start}")
    require_model([resolved.generator.prior], moments)
    resolved = without_auto(resolved, directory)
    record = open_analysis(require(resolved, directory, ANALYSIS), whole=False, past_states=resolved.forcings.past_states)
    resolved = without_latest(resolved, record)
    return Origin(resolved, directory, record, trained(resolved, directory, record, moments), record.times[0])


def of_model(
    model: str | Path,
    initial: str | Path | None,
    recipe: str | Path | Recipe | Overridden | None,
    run: str | Path | None,
    changes: Mapping[str, Any],
) -> Origin:
    """The networks of a model file, and initial states from a source of analyses.

    Args:
        model: path of the model file.
        initial: the source, as for ``wsdcast prepare``.
        recipe: None, or changed keys of the section ``rollout``.
        run: run directory; default ``runs/<name of the file>-<initial time>``.
        changes: keys of the recipe that options change.

    Raises:
        UserError: if the file or the source cannot be used, a key outside ``rollout`` is changed, or the run directory has networks of its
            own.
    """
    file = read_model(model)
    if initial is None:
        raise UserError(f"--model {model}: give the source of the initial states with --initial")
    initial = address_given(initial, "--initial")
    if changes.get("rollout__starts") is not None:
        raise UserError("--starts chooses initial times of a test split; with --model give them with --start")
    if isinstance(recipe, str | Path | Recipe) or (recipe is not None and recipe.recipe is not None):
        raise UserError(f"--model {model} has its own recipe: leave out --recipe, and change keys of rollout with -o")
    values = {} if recipe is None else recipe.values
    if fixed := [key for key in values if not key.startswith("rollout.")]:
        raise UserError(f"-o {fixed[0]}: a model file fixes all of its recipe but the section rollout")
    # The initial times in the file's recipe are those of its own record.
    without_start = file.recipe.model_copy(update={"rollout": file.recipe.rollout.model_copy(update={"start": None})})
    resolved = overridden(without_start, values, changes)
    with tempfile.TemporaryDirectory(prefix="wsdcast-") as scratch:
        try:
            record, about_source = initial_states(file.record, resolved, initial, Path(scratch))
        finally:
            close_all()
    start = resolved.rollout.start
    if start is None or start == LATEST:
        start = str(record.times[-1].astype("datetime64[h]"))
        resolved = resolved.changed(rollout__start=start)
    directory = Path(run) if run is not None else Path("runs") / f"{file.path.stem}-{start.replace('/', '-')}"
    if any((directory / name).exists() for name in (MOMENTS, GENERATOR)):
        raise UserError(f"--run {directory} has trained networks of its own; a forecast with --model needs another directory")
    resolved = without_auto(resolved, directory)
    states = hashlib.sha256(record.times.tobytes() + record.states[:].tobytes()).hexdigest()
    facts = {"model": file.path.name, "sha256 of the model": file.digest} | about_source
    if initial != resolved.data.source:
        facts["climate"] = f"{difference_in_words(record)}; the model was trained on {resolved.data.source}"
    networks = assembled(resolved, record, file.load)
    return Origin(resolved, directory, record, networks, file.trained_from, digest_of([file.digest, states]), file.card, file.errors, facts)
