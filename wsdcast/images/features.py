"""Networks that compute features of images: a small classifier trained on the same data, and Inception from a weights file of the user.

Fréchet distances by features of different networks cannot be compared: a distance by the classifier must never be called FID.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsdcast.runs.errors import UserError, first_line

FEATURES = 128
"""Number of features of the classifier."""
QUARTER_TURNS = 4
"""Number of classes if images have no labels: the quarter turns."""

INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
"""The weights file that torch-fidelity and torchmetrics use, from torch-fidelity's release v0.2.0 on GitHub; pytorch-fid uses the same."""
CHECKSUM = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""SHA-256 of that file. With other weights a distance could not be compared with the literature."""


class Classifier(nn.Module):
    """A residual network of 0.3 million weights for images of 16 to 128 pixels a side (He et al. 2016).

    The first layer halves the image, so that training takes minutes on one core. Group normalisation is used so that the features of an
    image do not depend on the other images of the batch.

    Args:
        channels: 1 or 3.
        classes: number of classes.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 32, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(_Block(32, 32), _Block(32, 64, 2), _Block(64, FEATURES, 2))
        self.norm = nn.GroupNorm(8, FEATURES)
        self.last = nn.Linear(FEATURES, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, class) of images (batch, channel, height, width) in [-1, 1]."""
        return self.last(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """Return the last hidden layer, averaged over the image, (batch, 128)."""
        return F.relu(self.norm(self.blocks(self.first(x)))).mean(dim=(2, 3))


class _Block(nn.Module):
    """A residual block: two convolutions and a skip connection."""

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
    """Return the mean cross-entropy of images (batch, channel, height, width) in [-1, 1] with labels (batch,)."""
    return F.cross_entropy(classifier(images), labels)


def mirrored(images: Tensor, random: torch.Generator) -> Tensor:
    """Mirror each image (batch, channel, height, width) left to right with probability 1/2; ``random`` is on the CPU."""
    chosen = torch.rand(len(images), generator=random) < 0.5
    return torch.where(chosen.to(images.device)[:, None, None, None], images.flip(3), images)


def turned(images: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Turn each image by a random number of quarter turns. Predicting it is a task for data without labels (Gidaris et al. 2018).

    Args:
        images: square images, (batch, channel, size, size).
        random: random generator on the CPU.

    Returns:
        The turned images, and the number of quarter turns of each, (batch,).
    """
    turns = torch.randint(0, QUARTER_TURNS, (len(images),), generator=random)
    result = torch.empty_like(images)
    for turn in range(QUARTER_TURNS):
        result[turns == turn] = torch.rot90(images[turns == turn], turn, dims=(2, 3))
    return result, turns.to(images.device)


def inception(weights: Path, checksum: str = CHECKSUM) -> Callable[[Tensor], Tensor]:
    """Return the function that computes the features of FID: Inception v3 of 2015, by torch-fidelity, which resizes as the original did.

    (torchmetrics enlarges images in another way by default; with ``antialias=False`` its features are the same.)

    Args:
        weights: the file :data:`INCEPTION`. Only tensors are read from it; no code in it is executed.
        checksum: SHA-256 of the file.

    Returns:
        A function from images uint8 (batch, 1 or 3, height, width), on any device, to features float32 (batch, 2048).

    Raises:
        UserError: if torch-fidelity cannot be imported, or the file is missing or a different one.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except (ImportError, RuntimeError) as error:  # RuntimeError comes from a torchvision that was built for another torch
        raise UserError(
            f"Inception features need torch-fidelity, which cannot be imported ({first_line(error)}): pip install 'wsdcast[fid]',"
            " with a torchvision for this torch"
        ) from None
    try:
        content = weights.read_bytes()
    except OSError as error:
        raise UserError(f"Inception weights {weights}: cannot be read ({error.strerror}); expected {INCEPTION}") from None
    if (digest := hashlib.sha256(content).hexdigest()) != checksum:
        raise UserError(f"Inception weights {weights}: not {INCEPTION}, whose SHA-256 begins with {checksum[:8]}, not {digest[:8]}")
    # torch-fidelity would execute code in the file. So it gets a new file that holds only the tensors of the user's file.
    safe = io.BytesIO()
    try:
        torch.save(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), safe)
        safe.seek(0)
        network = FeatureExtractorInceptionV3("inception", ["2048"], safe)
    except Exception as error:
        raise UserError(f"Inception weights {weights}: not those of Inception v3 ({first_line(error)})") from None

    @torch.inference_mode()
    def features(images: Tensor) -> Tensor:
        network.to(images.device)
        return network(images.expand(-1, 3, -1, -1))[0]

    return features
