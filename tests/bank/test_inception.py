"""The network of canonical FID against values of torch-fidelity's, with the same random weights."""

import dataclasses

import numpy as np
import pytest
import torch
from inputs import write_images
from torchvision.models.inception import Inception3

import probe
from probe.bank.base import resize
from probe.bank.fid import fid_spec
from probe.bank.load import load_backbone
from probe.bank.spec import Weights
from probe.errors import BackboneUnavailable
from probe.files import digest_file

# FeatureExtractorInceptionV3 of torch-fidelity 0.4.0, features "2048", on the weights of `file`
# and the images below: the mean of all, then every 400th of each of two images.
SIDES = {
    40: [
        1.20867,
        0.0,
        0.021615,
        0.00473638,
        0.08791,
        0.382283,
        3.37668,
        0.0,
        0.0049815,
        0.00460687,
        0.0570251,
        0.213834,
        2.36076,
    ],
    320: [
        1.31752,
        0.0,
        0.0206633,
        0.00493267,
        0.0858271,
        0.388681,
        3.39439,
        0.0,
        0.00769195,
        0.00219011,
        0.0788259,
        0.227006,
        2.61308,
    ],
}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file of the names and shapes that pytorch-fid publishes, with random numbers."""
    rng, state = np.random.RandomState(0), {}
    shapes = {
        k: v.shape for k, v in Inception3(1008, False, init_weights=False).state_dict().items()
    }
    for name, shape in sorted(shapes.items()):
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
            continue
        values = rng.standard_normal(shape)
        if name.endswith("conv.weight"):
            values *= np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith(("running_var", "bn.weight")):
            values = 1 + 0.1 * np.abs(values)
        else:
            values *= 0.1
        state[name] = torch.from_numpy(values).float()
    path = tmp_path_factory.mktemp("inception") / "pt_inception.pth"
    torch.save(state, path)
    return path


def images(side):
    """A dark and a bright one, each with a ramp."""
    noise = np.random.RandomState(side).randint(0, 100, (2, 3, side, side))
    noise[1] += np.linspace(0, 150, side).astype(int)
    return noise.astype(np.uint8)


def test_features_are_those_of_an_independent_implementation(file):
    spec = dataclasses.replace(fid_spec(), weights=Weights(file=str(file)), sha256=None)
    backbone = load_backbone(spec, offline=True)
    assert backbone.dim == 2048
    for side, expected in SIDES.items():
        pixels = images(side)
        with torch.inference_mode():
            features = backbone(torch.from_numpy(pixels).float() / 255)
        found = [features.mean().item(), *features[:, ::400].flatten().tolist()]
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_canonical_fid_from_the_file_in_torchs_cache(file, tmp_path, monkeypatch):
    """Either project's name for the file is found, and no bank entry is needed."""
    place = tmp_path / "torch" / "hub" / "checkpoints"
    place.mkdir(parents=True)
    (place / "weights-inception-2015-12-05-6726825d.pth").symlink_to(file)
    monkeypatch.setattr("probe.bank.fid.SHA256", digest_file(file))
    reals = write_images(tmp_path / "reals", 16, seed=1)
    fakes = write_images(tmp_path / "fakes", 16, seed=2, blue=40)
    found = probe.measure(
        reals, fakes, backbones=[], options=probe.MeasureOptions(fid=True), offline=True
    )["inception-fid"]
    assert found.status == "ok" and found.computed_in == "fp32" and found.dim == 2048
    assert found.frechet > 0


def test_tensorflows_resize_is_its_definition():
    """Pixel i of n is read at i · old / n, between its two neighbours; nothing is centred."""
    image = torch.rand(1, 3, 7, 7)
    for size in (5, 11):
        found = resize(image, size, "tf1-bilinear")
        for row in range(size):
            for column in range(size):
                y, x = row * 7 / size, column * 7 / size
                top, left = int(y), int(x)
                below, right = min(top + 1, 6), min(left + 1, 6)
                upper = image[0, :, top, left] * (1 - x + left) + image[0, :, top, right] * (
                    x - left
                )
                lower = image[0, :, below, left] * (1 - x + left)
                lower += image[0, :, below, right] * (x - left)
                expected = upper * (1 - y + top) + lower * (y - top)
                torch.testing.assert_close(found[0, :, row, column], expected, atol=1e-5, rtol=0)


def test_another_file_is_refused(file, tmp_path, monkeypatch):
    spec = dataclasses.replace(fid_spec(), weights=Weights(file=str(file)))
    with pytest.raises(BackboneUnavailable, match="is not the file"):
        load_backbone(spec, offline=True)
    torch.save({"fc.weight": torch.ones(1)}, tmp_path / "w.pth")
    spec = dataclasses.replace(spec, weights=Weights(file=str(tmp_path / "w.pth")), sha256=None)
    with pytest.raises(BackboneUnavailable, match="lacks"):
        load_backbone(spec, offline=True)
