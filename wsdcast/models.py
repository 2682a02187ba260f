"""The two networks of the weather model: how a recipe shapes them, what they read, how they are kept."""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from wsdcast.data.store import VARIABLES
from wsdcast.errors import UserError
from wsdcast.experiment import Network
from wsdcast.nets.unet import UNet
from wsdcast.recipe import Generator, Moments
from wsdcast.warmstart.moments import MomentsModel

CHANNELS = len(VARIABLES)
CONTEXT = 2 * CHANNELS
WEIGHTS = "weights"
"""Name of the file of a network's weights."""

Model = TypeVar("Model", bound=nn.Module)


def operations(model: nn.Module, *inputs: torch.Tensor) -> int:
    """Floating-point operations of a forward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*inputs)
    return counter.get_total_flops()


def size(model: nn.Module) -> str:
    """How large a model is, in words."""
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.2f} M parameters"


def keep_freed_memory() -> None:
    """Tell glibc to keep large freed blocks instead of returning them to the system.

    Returned, each is zeroed page by page when it is next asked for, several times in every layer: batches of 25 samples on two cores
    then took 2.4 ms a sample instead of 1.5. Other systems have no ``mallopt``, and nothing happens there.
    """
    trim_threshold, mmap_threshold = -1, -3
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None:
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, (1 << 31) - 1)


def device() -> torch.device:
    """The GPU where torch finds one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def moments_model(network: Moments, includes_poles: bool, beside: int = 0) -> MomentsModel:
    """An untrained h_phi, with ``beside`` channels beside the wind; its mean is persistence of the state now."""
    outputs = (2 + network.rank) * CHANNELS
    body = unet(network, CONTEXT + beside, outputs, 0, includes_poles)
    if network.rank:
        # The likelihood is stationary where all patterns of correlation are zero.
        nn.init.normal_(body.last.weight[2 * CHANNELS :], std=0.05)
    return MomentsModel(body, CHANNELS, rank=network.rank, maximum_std=network.highest_std)


def generator_model(network: Generator, includes_poles: bool, beside: int = 0, rank: int = 0) -> UNet:
    """An untrained p'_theta, with ``beside`` channels beside the wind, conditioned on flow time and warmth.

    ``rank`` is how many patterns of correlation it is told of.
    """
    channels = CHANNELS + CONTEXT + beside + (2 + rank) * CHANNELS
    return unet(network, channels, CHANNELS, 2, includes_poles)


def unet(network: Network, inputs: int, outputs: int, scalars: int, includes_poles: bool = False, sphere: bool = True) -> UNet:
    """A U-Net of the shape that a recipe gives a network, on the sphere or on a plane."""
    return UNet(
        inputs,
        outputs,
        network.widths,
        network.blocks,
        scalars,
        network.dropout,
        includes_poles,
        network.recompute,
        sphere=sphere,
        attention=network.attention,
    )


def save(networks: dict[str, nn.Module], path: Path, stamp: dict[str, Any]) -> None:
    """Write weights (``NAME.safetensors``) and stamp (JSON) into the directory ``path``."""
    for name, network in networks.items():
        weights = {key: tensor.cpu().contiguous() for key, tensor in network.state_dict().items()}
        try:
            save_file(weights, path / f"{name}.safetensors")
        except safetensors.SafetensorError as error:
            raise OSError(f"{path}: weights cannot be written ({error})") from None
    (path / "stamp.json").write_text(json.dumps(stamp, indent=2))


def load(model: Model, path: Path, name: str = WEIGHTS) -> Model:
    """Fill ``model`` with the weights of that name in the directory ``path``, ready for inference.

    Raises:
        UserError: if they are damaged or do not fit.
    """
    file = path / f"{name}.safetensors"
    try:
        model.load_state_dict(load_file(file))
    except (OSError, safetensors.SafetensorError, RuntimeError) as error:
        raise UserError(f"{file}: cannot be read as the weights of this recipe ({str(error).splitlines()[0]})") from None
    return to_device(model.eval().requires_grad_(False))


def to_device(model: Model, channels_last: bool = True) -> Model:
    """Move a model to the device, channels last unless told otherwise: most convolutions are faster so, on CPUs and GPUs."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return model.to(device=device(), memory_format=layout)  # type: ignore[call-overload]
