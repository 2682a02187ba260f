"""Model files (``.wsd``): a trained weather model in one file, to forecast with where neither its record nor its run directory is.

A model file is a zip of JSON, text and safetensors. Nothing in it is executed or unpickled. ``SHA256SUMS`` has the digest of every other
entry, as ``sha256sum`` writes it; the digest of ``SHA256SUMS`` itself identifies the file.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from torch import Tensor, nn

from wsdcast.data.grid import Grid
from wsdcast.data.store.analysis import Analysis
from wsdcast.data.store.states import PackedStates
from wsdcast.data.store.zarr_store import Packing, wind_packing
from wsdcast.data.variables import DEFAULT
from wsdcast.nets.weights import WEIGHTS, loaded
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import MODEL_CARD
from wsdcast.runs.old_names import with_new_names
from wsdcast.runs.recipes import checked
from wsdcast.weather.recipe import Recipe

FORMAT = 1
"""Version of the layout of model files. A change that older versions of this package would misread raises it."""
SUMS, MODEL, FIELDS, ERRORS = "SHA256SUMS", "model.json", "fields.safetensors", "past-errors.safetensors"


@dataclass(frozen=True)
class ModelFile:
    """The content of a model file.

    Attributes:
        path: path of the file.
        digest: SHA-256 of its ``SHA256SUMS``, in hexadecimal.
        recipe: the recipe that the model was trained with.
        card: the model card, in Markdown.
        trained_from: the first time that the model was trained on.
        record: a record without states: the grid, normalisation, packing, splits and static fields of the model.
        weights: the content of the weights file of each artefact.
        errors: past errors of a model without a generator, (error, variable, latitude, longitude).
    """

    path: Path
    digest: str
    recipe: Recipe
    card: str
    trained_from: np.datetime64
    record: Analysis
    weights: Mapping[str, bytes]
    errors: Tensor | None = None

    def load(self, network: nn.Module, artefact: str) -> None:
        """Load the weights of an artefact into its untrained network.

        Raises:
            UserError: if the file has no such weights, or they do not fit the network.
        """
        if artefact not in self.weights:
            raise UserError(f"{self.path}: has no weights of the {artefact}")
        loaded(network, self.path / f"{artefact}.safetensors", self.weights[artefact])


def write_model(
    path: Path, recipe: Recipe, record: Analysis, directory: Path, facts: Mapping[str, Any], card: str, errors: Tensor | None = None
) -> str:
    """Write a model file, and return its digest. Equal models give equal bytes."""
    fields: dict[str, NDArray[Any]] = {"latitude": record.grid.latitude, "longitude": record.grid.longitude}
    fields |= {"difference_std": record.difference_std, "mean": record.mean, "std": record.std}
    fields |= {name: record.static[name] for name in recipe.forcings.static}
    if record.variables + record.forcing_variables != DEFAULT:
        fields |= record.states.packing._asdict()
    model = {
        "format": FORMAT,
        "variables": list(record.variables),
        "forcing_variables": list(record.forcing_variables),
        "recipe": recipe.dump(),
        "validation_from": str(record.validation_from.astype("datetime64[s]")),
        "test_from": str(record.test_from.astype("datetime64[s]")),
        **facts,
    }
    entries = {MODEL: json.dumps(model, indent=1).encode(), MODEL_CARD: card.encode()}
    entries[FIELDS] = save_arrays({name: np.ascontiguousarray(values) for name, values in fields.items()})
    entries |= {f"{name}.safetensors": (directory / name / f"{WEIGHTS}.safetensors").read_bytes() for name in reversed(recipe.networks)}
    if errors is not None:
        entries[ERRORS] = save_arrays({"errors": errors.cpu().numpy()})
    entries[SUMS] = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in entries.items()).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for name, content in entries.items():
            file.writestr(zipfile.ZipInfo(name), content)  # a ZipInfo has a fixed date, so that equal models give equal bytes
    return hashlib.sha256(entries[SUMS]).hexdigest()


def read_model(path: str | Path) -> ModelFile:
    """Read a model file and check every digest.

    Raises:
        UserError: if the file is missing or damaged, was written by a newer version, or has variables that this version does not know.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as file:
            if any(info.compress_type != zipfile.ZIP_STORED for info in file.infolist()):
                raise UserError(f"{path}: not a model file of wsdcast (its entries are compressed)")
            entries = {info.filename: file.read(info) for info in file.infolist()}
    except FileNotFoundError:
        raise UserError(f"{path} is not there; `wsdcast export-model` writes a model file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a directory; `wsdcast export-model RUN FILE.wsd` writes a model file") from None
    except (OSError, zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path}: cannot be read as a model file ({str(error) or type(error).__name__})") from None
    if not {SUMS, MODEL, MODEL_CARD, FIELDS} <= set(entries):
        raise UserError(f"{path}: not a model file of wsdcast")
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in entries.items() if name != SUMS)
    if entries[SUMS].decode(errors="replace") != sums:
        raise UserError(f"{path}: damaged or changed since it was written (its content does not agree with {SUMS})")
    try:
        model = json.loads(entries[MODEL])
        if model["format"] > FORMAT:
            raise UserError(f"{path}: written by a newer version of wsdcast (format {model['format']}, here {FORMAT}); update wsdcast")
        recipe = checked(with_new_names(model["recipe"]), f"recipe of {path}", Recipe)
        variables, further = tuple(model["variables"]), tuple(model.get("forcing_variables", ()))
        names = (*variables, *further)
        fields = load_arrays(entries[FIELDS])
        for name in {"mean", "std", "difference_std", "scale", "offset"} & set(fields):
            if fields[name].shape != (len(names),) or fields[name].dtype != np.float32:
                raise UserError(f"{path}: a model of {', '.join(names)}, with {name} {fields[name].dtype} {fields[name].shape}")
        trained_from = np.datetime64(model["trained_on"][0], "ns")
        packing = wind_packing(len(names)) if names == DEFAULT else Packing(fields.pop("scale"), fields.pop("offset"))
        record = Analysis(
            states=PackedStates(np.empty((0, len(names), fields["latitude"].size, fields["longitude"].size), np.int16), packing),
            times=np.empty(0, "datetime64[ns]"),
            grid=Grid(fields.pop("latitude"), fields.pop("longitude")),
            mean=fields.pop("mean"),
            std=fields.pop("std"),
            difference_std=fields.pop("difference_std", np.full(len(names), np.nan, np.float32)),
            validation_from=np.datetime64(model["validation_from"], "ns"),
            test_from=np.datetime64(model["test_from"], "ns"),
            static=fields,
            variables=variables,
            forcing_variables=further,
            past_states=recipe.forcings.past_states,
        )
        errors = None
        if recipe.generator.objective == "none":
            errors = torch.from_numpy(load_arrays(entries.pop(ERRORS))["errors"])
            shape = (len(variables), *record.grid.shape)
            fits = errors.dtype == torch.float32 and errors.shape[1:] == shape and 1 <= len(errors) <= errors[0].numel()
            if not fits or not errors.isfinite().all():
                raise UserError(f"{path}: its past errors are not finite float32 fields (error, {', '.join(map(str, shape))})")
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: not a model file that this version can read ({type(error).__name__}: {error})") from None
    weights = {name.removesuffix(".safetensors"): content for name, content in entries.items() if name.endswith(".safetensors")}
    digest = hashlib.sha256(entries[SUMS]).hexdigest()
    return ModelFile(path, digest, recipe, entries[MODEL_CARD].decode(errors="replace"), trained_from, record, weights, errors)
