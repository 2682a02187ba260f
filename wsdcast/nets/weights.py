"""Storing and loading the weights of networks, moving networks to a device, and their size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import torch
from safetensors.torch import load, load_file
from safetensors.torch import save as serialised
from torch import nn

from wsdcast.runs import devices
from wsdcast.runs.errors import UserError, first_line

WEIGHTS = "weights"
"""The name of a network's weights file, without its suffix."""


Model = TypeVar("Model", bound=nn.Module)


def operations(model: nn.Module, *inputs: torch.Tensor) -> int:
    """Return the number of floating-point operations of a forward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*inputs)
    return counter.get_total_flops()


def size_in_words(model: nn.Module) -> str:
    """Return the number of parameters of a model, in words."""
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.2f} M parameters"


def save_networks(networks: dict[str, nn.Module], path: Path, stamp: dict[str, Any]) -> None:
    """Write the weights of each network (``NAME.safetensors``) and the stamp (``stamp.json``) into the directory ``path``.

    Raises:
        OSError: if weights cannot be written.
    """
    for name, network in networks.items():
        weights = {key: tensor.cpu().contiguous() for key, tensor in network.state_dict().items()}
        # Not by save_file: only the owner could read its file, whatever the umask.
        (path / f"{name}.safetensors").write_bytes(serialised(weights))
    (path / "stamp.json").write_text(json.dumps(stamp, indent=2))


def load_network(model: Model, path: Path, name: str = WEIGHTS) -> Model:
    """Load the weights with this name from the directory ``path`` into ``model``, and return it on the device, ready for inference.

    Raises:
        UserError: if the weights are missing, damaged, or do not fit the model.
    """
    return loaded(model, path / f"{name}.safetensors")


def loaded(model: Model, file: Path, content: bytes | None = None) -> Model:
    """The same for one file of weights, or for its content if that is in memory already; ``file`` then only names it in errors."""
    try:
        model.load_state_dict(load_file(file) if content is None else load(content))
    except (OSError, safetensors.SafetensorError, RuntimeError) as error:
        remedy = f"; move {file.parent} away to have it made again" if content is None else ""
        raise UserError(f"{file}: cannot be read as the weights of this recipe ({first_line(error)}){remedy}") from None
    return to_device(model.eval().requires_grad_(False))


def to_device(model: Model, channels_last: bool = True) -> Model:
    """Move a model to the device, by default channels last: with that format most convolutions are faster, on CPUs and GPUs."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return model.to(device=devices.device(), memory_format=layout)  # type: ignore[call-overload]
