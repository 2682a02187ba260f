"""Features of images: those of a small classifier that is trained on the same data, and Inception's from a file of the user's.

Distances between features say little across networks: a Fréchet distance by the classifier is never to be called FID.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsdcast.runs.errors import UserError

FEATURES = 128
"""How many features the classifier has."""
TURNS = 4
"""Classes where images have no labels."""

INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
"""The file that torch-fidelity and torchmetrics use, from torch-fidelity's release v0.2.0 on GitHub; pytorch-fid's is the same."""
CHECKSUM = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Its SHA-256: with any other weights a distance would compare with nothing in the literature."""


class Classifier(nn.Module):
    """A residual network of 0.3 million weights for images of 16 to 128 points a side (He et al. 2016).

    The first layer halves the image, so that a training takes minutes on one core; group normalisation, so that the features of an image
    do not depend on what else is in the batch.

    Args:
        channels: 1 or 3.
        classes: how many labels there are.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 32, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(_Block(32, 32), _Block(32, 64, 2), _Block(64, FEATURES, 2))
        self.norm = nn.GroupNorm(8, FEATURES)
        self.last = nn.Linear(FEATURES, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, class) of images (batch, channel, height, width) in [-1, 1]."""
        return self.last(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """Last hidden layer, averaged over the image, (batch, 128)."""
        return F.relu(self.norm(self.blocks(self.first(x)))).mean(dim=(2, 3))


class _Block(nn.Module):
    """Two convolutions beside a skip connection."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, inputs), nn.GroupNorm(8, outputs)
        self.convolution1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.convolution2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.convolution1(F.relu(self.norm1(x)))
        return self.skip(x) + self.convolution2(F.relu(self.norm2(hidden)))


def classifier_loss(classifier: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of images (batch, channel, height, width) in [-1, 1] with labels (batch,)."""
    return F.cross_entropy(classifier(images), labels)


def mirrored(images: Tensor, random: torch.Generator) -> Tensor:
    """Half of the images (batch, channel, height, width) mirrored left to right; ``random`` is on the CPU."""
    chosen = torch.rand(len(images), generator=random) < 0.5
    return torch.where(chosen.to(images.device)[:, None, None, None], images.flip(3), images)


def turned(images: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """A task for data without labels: which of four quarter turns was an image given? (Gidaris et al. 2018)

    Args:
        images: (batch, channel, size, size); square ones.
        random: source of what is drawn, on the CPU.

    Returns:
        The turned images, and by how many quarter turns each (batch,).
    """
    turns = torch.randint(0, TURNS, (len(images),), generator=random)
    found = torch.empty_like(images)
    for turn in range(TURNS):
        found[turns == turn] = torch.rot90(images[turns == turn], turn, dims=(2, 3))
    return found, turns.to(images.device)


def inception(weights: Path, checksum: str = CHECKSUM) -> Callable[[Tensor], Tensor]:
    """The features that FID is made of: Inception v3 of 2015, torch-fidelity's, which enlarges images as the original did.

    (torchmetrics enlarges otherwise unless it is told ``antialias=False``; then its features are these.)

    Args:
        weights: the file :data:`INCEPTION`. It is read for tensors alone: nothing in it is executed.
        checksum: SHA-256 of the file.

    Returns:
        From images uint8 (batch, 1 or 3, height, width), on any device, to features float32 (batch, 2048).

    Raises:
        UserError: if torch-fidelity cannot be imported, or the file is missing or another one.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except (ImportError, RuntimeError) as error:  # a torchvision made for another torch raises the latter
        raise UserError(
            f"Inception features need torch-fidelity, which cannot be imported ({str(error).splitlines()[0]}): pip install 'wsdcast[fid]',"
            " with a torchvision for this torch"
        ) from None
    try:
        content = weights.read_bytes()
    except OSError as error:
        raise UserError(f"Inception weights {weights}: cannot be read ({error.strerror}); expected {INCEPTION}") from None
    if (found := hashlib.sha256(content).hexdigest()) != checksum:
        raise UserError(f"Inception weights {weights}: not {INCEPTION}, whose SHA-256 begins with {checksum[:8]}, not {found[:8]}")
    # torch-fidelity would execute what a file says. It gets one that holds the tensors of the user's and was written here.
    safe = io.BytesIO()
    try:
        torch.save(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), safe)
        safe.seek(0)
        network = FeatureExtractorInceptionV3("inception", ["2048"], safe)
    except Exception as error:
        raise UserError(f"Inception weights {weights}: not those of Inception v3 ({str(error).splitlines()[0]})") from None

    @torch.inference_mode()
    def features(images: Tensor) -> Tensor:
        network.to(images.device)
        return network(images.expand(-1, 3, -1, -1))[0]

    return features
