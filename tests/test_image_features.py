"""Features of images: the classifier of this package, and Inception v3 as torchmetrics has it."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from wsdcast.images.features import FEATURES, INCEPTION, Classifier, classifier_loss, inception, mirrored, turned
from wsdcast.images.frechet import FeatureStatistics, frechet_distance
from wsdcast.runs.errors import UserError


@pytest.mark.parametrize(("channels", "size"), [(3, 16), (1, 28), (3, 32), (3, 64)])
def test_the_classifier_takes_images_of_any_size(channels, size):
    torch.manual_seed(0)
    network, x = Classifier(channels, 10), torch.rand(5, channels, size, size) * 2 - 1
    assert network(x).shape == (5, 10)
    assert network.features(x).shape == (5, FEATURES)
    assert 2.5e5 < sum(parameter.numel() for parameter in network.parameters()) < 3.5e5
    # Features do not depend on the rest of the batch.
    torch.testing.assert_close(network.features(x)[2:3], network.features(x[2:3]), rtol=1e-4, atol=1e-5)


def test_the_classifier_learns_to_tell_stripes_apart():
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(0)
    network = Classifier(1, 2)
    labels = torch.arange(64) % 2
    # Stripes along rows or along columns.
    stripes = torch.sin(torch.arange(16) * 1.5 + 6 * torch.rand(64, 1, 1, generator=random)).expand(64, 16, 16)
    images = torch.where(labels[:, None, None] == 0, stripes, stripes.mT)[:, None]
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for _ in range(20):
        optimiser.zero_grad()
        classifier_loss(network, images, labels).backward()
        optimiser.step()
    assert (network(images).argmax(1) == labels).all()


def test_images_are_turned_by_the_number_of_quarter_turns_that_is_returned():
    images = torch.randint(0, 256, (40, 3, 6, 6), dtype=torch.uint8)
    results, turns = turned(images, torch.Generator().manual_seed(0))
    assert set(turns.tolist()) == {0, 1, 2, 3}
    for image, original, turn in zip(results, images, turns.tolist(), strict=True):
        np.testing.assert_array_equal(image.movedim(0, -1).numpy(), np.rot90(original.movedim(0, -1).numpy(), turn))


def test_half_of_the_images_are_mirrored():
    images = torch.randint(0, 256, (400, 2, 3, 5), dtype=torch.uint8)
    results = mirrored(images, torch.Generator().manual_seed(0))
    same = (results == images).all(dim=(1, 2, 3))
    assert (same | (results == images.flip(3)).all(dim=(1, 2, 3))).all()
    assert same.float().mean() == pytest.approx(0.5, abs=0.08)


OPERATORS = torch.library.Library("torchvision", "FRAGMENT")


@pytest.fixture(scope="module")
def fidelity():
    """Return the module with torch-fidelity's network.

    It imports torchvision. A torchvision built for CUDA lacks its operators when torch is built without CUDA, so they are declared.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in ("nms", "qnms"):
            OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torch_fidelity.feature_extractor_inceptionv3 as module

    return module


@pytest.fixture(scope="module")
def weights(fidelity, tmp_path_factory):
    """Return a file with random weights of Inception v3, and its checksum."""
    torch.manual_seed(0)
    with mock.patch.object(fidelity.FeatureExtractorInceptionV3, "load_state_dict"), mock.patch.object(torch, "load"):
        network = fidelity.FeatureExtractorInceptionV3("random", ["2048"], "none")
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(network.state_dict(), path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_inception_features_are_those_of_torchmetrics(weights):
    from torchmetrics.image.fid import NoTrainInceptionV3

    path, checksum = weights
    features = inception(path, checksum)
    colour, grey = (torch.randint(0, 256, (1, channels, 32, 32), dtype=torch.uint8) for channels in (3, 1))
    result = torch.cat([features(colour), features(grey)])
    assert result.shape == (2, 2048)
    assert result.std() > 0
    expected = NoTrainInceptionV3("inception", ["2048"], str(path), antialias=False)
    # Grey images are colour images with three equal channels.
    torch.testing.assert_close(result, expected(torch.cat([colour, grey.repeat(1, 3, 1, 1)])).clone())


@pytest.mark.slow
def test_the_inception_distance_is_that_of_torchmetrics(weights):
    from torchmetrics.image.fid import FrechetInceptionDistance

    path, checksum = weights
    random = torch.Generator().manual_seed(0)
    true = torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8, generator=random)
    false = torch.randint(0, 128, (10, 3, 32, 32), dtype=torch.uint8, generator=random)
    metric = FrechetInceptionDistance(feature_extractor_weights_path=str(path), antialias=False)
    metric.update(true, real=True)
    metric.update(false, real=False)
    features = inception(path, checksum)
    a, b = (FeatureStatistics.of(features(images).numpy()) for images in (true, false))
    assert frechet_distance(a, b) == pytest.approx(metric.compute().item(), rel=1e-3)


@pytest.mark.usefixtures("fidelity")
def test_the_distance_of_any_features_is_that_of_torchmetrics():
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Means(torch.nn.Module):
        num_features = 12

        def forward(self, x):
            return x.float().reshape(len(x), 12, -1).mean(dim=2)

    random = torch.Generator().manual_seed(0)
    true, false = (torch.randint(0, top, (30, 3, 8, 8), dtype=torch.uint8, generator=random) for top in (256, 200))
    metric = FrechetInceptionDistance(feature=Means())
    metric.update(true, real=True)
    metric.update(false, real=False)
    a, b = (FeatureStatistics.of(Means()(images).numpy()) for images in (true, false))
    assert frechet_distance(a, b) == pytest.approx(metric.compute().item(), rel=1e-3)


class Trap:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.usefixtures("fidelity")
def test_weights_are_never_executed(tmp_path, legacy):
    created, path = tmp_path / "created", tmp_path / "weights.pth"
    torch.save({"fc.weight": Trap(created)}, path, _use_new_zipfile_serialization=not legacy)
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(UserError, match="not those of Inception v3"):
        inception(path, checksum)
    assert not created.exists()
    torch.load(path, weights_only=False)
    assert created.exists()  # torch's own loading would have run it


@pytest.mark.usefixtures("fidelity")
def test_files_that_are_not_the_weights_are_refused(tmp_path):
    path = tmp_path / INCEPTION
    with pytest.raises(UserError, match=f"{INCEPTION}: cannot be read"):
        inception(path)
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match="SHA-256 begins with 6726825d"):
        inception(path)
    for content in (b"<html>not found</html>", pickle.dumps({"a": 1})):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not those of Inception v3"):
            inception(path, hashlib.sha256(content).hexdigest())
    torch.save({"fc.weight": torch.zeros(3)}, path)
    with pytest.raises(UserError, match="not those of Inception v3"):
        inception(path, hashlib.sha256(path.read_bytes()).hexdigest())


def test_a_missing_package_is_named_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(UserError, match="pip install 'wsdcast\\[fid\\]'") as caught:
        inception(tmp_path / INCEPTION)
    assert "\n" not in str(caught.value)
