"""Augmentations against closed forms, and the controller of their probability."""

import math

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch.nn import functional as F

from probe.discriminators import AUGMENTATIONS
from probe.discriminators.ada import (
    SYM6,
    ada,
    colour_matrices,
    geometric_matrices,
    hue,
    luma_flip,
    recolour,
    rotation,
    saturation,
    scaling,
    translation,
    warp,
)
from probe.discriminators.adaptive import AdaptiveAugment
from probe.discriminators.bilinear import sample_bilinear
from probe.discriminators.diffaugment import cutout, diffaugment
from probe.discriminators.draws import Draw
from probe.streams import torch_stream


def draws(total, name="test", **share):
    return Draw(torch_stream(0, name), total, **share)


def noise(n, side=16, channels=3, dtype=torch.float32):
    return torch.rand(n, channels, side, side, generator=torch_stream(1), dtype=dtype) * 2 - 1


def one(value):
    return torch.tensor([value], dtype=torch.float64)


def waves(x, y):
    """A smooth function of positions in pixels, with no symmetry."""
    return torch.sin(0.3 * x + 0.5) * torch.cos(0.2 * y) + 0.02 * x - 0.01 * y


def positions(side):
    """Pixels' positions from the centre: x, y, each (side, side)."""
    axis = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    return axis.expand(side, side), axis[:, None].expand(side, side)


def is_identity(matrices):
    return (matrices == torch.eye(matrices.shape[-1])).flatten(1).all(1)


# Random numbers


@pytest.mark.parametrize("method", ["uniform", "normal"])
def test_a_process_gets_its_rows_of_the_global_draw(method):
    whole = getattr(draws(7), method)(2)
    for offset, rows in ((0, 3), (1, 2), (2, 2)):
        share = draws(7, offset=offset, stride=3)
        assert share.count == rows
        assert torch.equal(getattr(share, method)(2), whole[offset::3])


def test_integers_cover_their_range():
    assert draws(200).integers(5, 3).unique().tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("augment", [ada, cutout, diffaugment])
def test_a_draw_for_another_batch_is_refused(augment):
    arguments = (0.5, draws(5)) if augment is ada else (draws(5),)
    with pytest.raises(ValueError, match="4 images"):
        augment(noise(4), *arguments)


# Geometry


def test_the_filter_is_an_orthonormal_wavelet_with_six_vanishing_moments():
    taps = torch.tensor(SYM6, dtype=torch.float64)
    k = torch.arange(12, dtype=torch.float64)
    assert taps.sum().item() == pytest.approx(math.sqrt(2), abs=1e-9)
    for shift in range(6):
        product = (taps[: 12 - 2 * shift] * taps[2 * shift :]).sum().item()
        assert product == pytest.approx(float(shift == 0), abs=1e-9)
    for moment in range(6):
        assert ((-1) ** k * k**moment * taps).sum().abs() < 1e-8


def test_geometric_matrices_invert():
    matrices = geometric_matrices(draws(500), 1.0, 32)
    identity = torch.eye(3, dtype=torch.float64).expand_as(matrices)
    assert torch.allclose(torch.linalg.inv(matrices) @ matrices, identity, atol=1e-9)


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-5, 5)])
def test_a_shift_by_whole_pixels_is_exact_and_reflects(shift):
    images, (x, y) = noise(1, dtype=torch.float64), shift
    padded = F.pad(images, (8, 8, 8, 8), mode="reflect")
    expected = padded[:, :, 8 - y : 24 - y, 8 - x : 24 - x]
    result = warp(images, translation(one(x), one(y)))
    assert torch.allclose(result, expected, atol=1e-9)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (scaling(one(-1), one(1)), lambda x: x.flip(3)),
        (rotation(one(math.pi / 2)), lambda x: x.rot90(-1, (2, 3))),
        (rotation(one(math.pi)), lambda x: x.rot90(2, (2, 3))),
    ],
)
def test_flips_and_quarter_turns_are_those_of_torch(matrix, expected):
    x, y = positions(32)
    image = waves(x, y)[None, None]
    # The filter is only nearly symmetric: its mirror image is a tenth of a pixel away.
    assert (warp(image, matrix) - expected(image)).abs().max() < 0.08
    assert (warp(image, matrix) - image).abs().max() > 1


def test_any_affine_map_moves_the_content():
    side = 48
    x, y = positions(side)
    matrix = translation(one(1.5), one(-2.25)) @ rotation(one(0.5)) @ scaling(one(1.6), one(1.3))
    result = warp(waves(x, y)[None, None], matrix)[0, 0]
    source = torch.linalg.inv(matrix[0]) @ torch.stack([x, y, torch.ones_like(x)]).flatten(1)
    expected = waves(*source[:2]).reshape(side, side)
    inside = (source[:2].abs().amax(0) < side / 2 - 4).reshape(side, side)
    assert inside.float().mean() > 0.9
    assert (result - expected)[inside].abs().max() < 0.05


def test_far_outside_there_is_a_reflection_not_a_hole():
    # Eight times smaller: the padding of side - 1 pixels covers three images out of eight.
    result = warp(torch.full((1, 1, 16, 16), 0.7), scaling(one(1 / 8), one(1 / 8)))
    assert torch.allclose(result, torch.full_like(result, 0.7), atol=1e-5)


def test_geometric_transformations_come_at_their_probability():
    p, n = 0.3, 20_000
    matrices = geometric_matrices(draws(n), p, 10**6)  # so fine that no shift rounds to none
    untouched = is_identity(matrices).double().mean()
    expected = (1 - p / 2) * (1 - 3 * p / 4) * (1 - p) ** 5
    assert untouched.item() == pytest.approx(expected, abs=0.01)
    area = torch.linalg.det(matrices)
    assert (area < 0).double().mean().item() == pytest.approx(p / 2, abs=0.015)
    zoom = area.abs().log2() / 2
    zoomed = zoom.abs() > 1e-9
    assert zoomed.double().mean().item() == pytest.approx(p, abs=0.015)
    assert zoom[zoomed].std().item() == pytest.approx(0.2, abs=0.01)


def test_geometric_transformations_have_their_strength():
    # At a tenth, about half of the touched samples show one transformation alone.
    matrices = geometric_matrices(draws(40_000), 0.1, 80)
    linear, shift = matrices[:, :2, :2], matrices[:, :2, 2]
    still, straight = (shift == 0).all(1), is_identity(linear)

    whole = straight & ~still & (shift == shift.round()).all(1)
    assert shift[whole].unique().tolist() == list(range(-10, 11))  # an eighth of 80
    fraction = straight & (shift != shift.round()).all(1)
    assert shift[fraction].std().item() == pytest.approx(10, abs=0.6)

    gram = linear @ linear.mT - torch.eye(2)
    rigid = (gram.abs().amax((1, 2)) < 1e-9) & (torch.linalg.det(linear) > 0)
    turned = linear[still & ~straight & rigid]
    degrees = torch.atan2(turned[:, 1, 0], turned[:, 0, 0]).rad2deg()
    quarters = degrees.round(decimals=6) % 90 == 0
    assert set(degrees[quarters].round().abs().tolist()) == {90, 180}
    angles = degrees[~quarters].sort().values
    assert torch.allclose(angles, torch.linspace(-180, 180, len(angles)).double(), atol=12)

    diagonal = (linear[:, 0, 1] == 0) & (linear[:, 0, 0] > 0) & (linear[:, 1, 1] > 0)
    stretch = still & diagonal & ((linear[:, 0, 0] * linear[:, 1, 1] - 1).abs() < 1e-9) & ~straight
    assert linear[stretch, 0, 0].log2().std().item() == pytest.approx(0.2, abs=0.01)


# Colour


def test_colour_matrices_are_the_five_steps_in_order():
    matrices = colour_matrices(draws(6), 1.0)
    pixels = noise(6, side=1, dtype=torch.float64)[:, :, 0, 0]
    replay = draws(6)

    def value(drawn):
        replay.uniform()  # the gate, open at p = 1
        return drawn.double()[:, None]

    expected = pixels + 0.2 * value(replay.normal())
    expected = expected * 2 ** (0.5 * value(replay.normal()))
    expected = expected - 2 * expected.mean(1, keepdim=True) * value(replay.integers(2))
    angles = value(replay.uniform()) * 2 * math.pi - math.pi
    turn = Rotation.from_rotvec((angles / math.sqrt(3)).expand(-1, 3).numpy())
    expected = torch.from_numpy(turn.apply(expected.numpy()))
    grey = expected.mean(1, keepdim=True)
    expected = grey + (expected - grey) * 2 ** value(replay.normal())

    result = recolour(pixels[:, :, None, None], matrices)[:, :, 0, 0]
    assert torch.allclose(result, expected, atol=1e-6)


def test_hue_and_saturation_keep_luma_and_the_luma_flip_keeps_chroma():
    images = noise(1, dtype=torch.float64)
    luma = images.mean(1, keepdim=True)
    turned = recolour(images, hue(one(1.0)))
    assert torch.allclose(turned.mean(1, keepdim=True), luma)
    assert not torch.allclose(turned, images, atol=0.1)
    assert torch.allclose(recolour(images, hue(one(2 * math.pi / 3))), images.roll(1, 1))
    assert torch.allclose(recolour(images, saturation(one(0.0))), luma.expand_as(images))
    assert torch.allclose(recolour(images, luma_flip(one(1.0))), images - 2 * luma)


def test_grey_images_are_coloured_like_three_equal_channels():
    grey, matrices = noise(8, channels=1), colour_matrices(draws(8), 1.0)
    coloured = recolour(grey.expand(-1, 3, -1, -1), matrices)
    assert torch.allclose(recolour(grey, matrices), coloured.mean(1, keepdim=True), atol=1e-5)


def test_colour_transformations_come_at_their_probability():
    p, n = 0.3, 20_000
    matrices = colour_matrices(draws(n), p)
    untouched = is_identity(matrices).double().mean()
    assert untouched.item() == pytest.approx((1 - p / 2) * (1 - p) ** 4, abs=0.015)
    flipped = torch.linalg.det(matrices) < 0
    assert flipped.double().mean().item() == pytest.approx(p / 2, abs=0.015)


# ADA as a whole


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_at_probability_zero_images_come_back_bit_for_bit(dtype):
    images = noise(8).to(dtype)
    result = ada(images, torch.tensor(0.0), draws(8))
    assert result.dtype == dtype
    assert torch.equal(result, images)


def test_images_that_nothing_hits_come_back_bit_for_bit_beside_others():
    images, replay = noise(24), draws(24)
    result = ada(images, 0.05, draws(24))
    geometry = geometric_matrices(replay, 0.05, 16)
    colour = colour_matrices(replay, 0.05)
    spared = is_identity(geometry) & is_identity(colour)
    assert 3 < spared.sum() < 21
    assert torch.equal((result == images).flatten(1).all(1), spared)


@pytest.mark.parametrize("channels", [1, 3])
def test_at_probability_one_every_image_changes(channels):
    images = noise(16, channels=channels)
    result = ada(images, 1.0, draws(16))
    assert result.shape == images.shape
    assert ((result - images).abs().amax((1, 2, 3)) > 0.05).all()


def test_the_stream_advances_alike_whatever_the_probability():
    states = []
    for p in (0.0, 0.4, 1.0):
        draw = draws(4)
        ada(noise(4), p, draw)
        states.append(draw.generator.get_state())
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


@pytest.mark.parametrize("name", ["ada", "diffaugment"])
def test_the_result_does_not_depend_on_the_number_of_processes(name):
    images, augment = noise(8), AUGMENTATIONS[name]
    whole = augment(images, 0.7, draws(8))
    halves = torch.empty_like(whole)
    for offset in (0, 1):
        share = draws(8, offset=offset, stride=2)
        halves[offset::2] = augment(images[offset::2], 0.7, share)
    assert torch.allclose(halves, whole, atol=1e-4)


@pytest.mark.parametrize("name", ["ada", "diffaugment"])
def test_both_derivatives_with_respect_to_the_images_are_exact(name):
    images = noise(2, side=8, dtype=torch.float64).requires_grad_()
    augment = AUGMENTATIONS[name]
    # Fast mode compares along random directions.
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda x: augment(x, 1.0, draws(2)), images, fast_mode=True)


def test_bilinear_sampling_is_that_of_torch_and_has_both_derivatives():
    images = noise(2, side=6, dtype=torch.float64).requires_grad_()
    theta = torch.randn(2, 2, 3, generator=torch_stream(2), dtype=torch.float64)
    grid = F.affine_grid(theta, [2, 3, 5, 7], align_corners=False)  # beyond the edges as well
    expected = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    assert torch.equal(sample_bilinear(images, grid), expected)
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda x: sample_bilinear(x, grid), images)


def test_autocast_does_not_reach_inside():
    images = noise(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = ada(images, 1.0, draws(4))
    assert torch.equal(result, ada(images, 1.0, draws(4)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_gpu_gives_what_the_cpu_gives(name):
    images, augment = noise(8), AUGMENTATIONS[name]
    result = augment(images.cuda(), 0.7, draws(8)).cpu()
    assert torch.allclose(result, augment(images, 0.7, draws(8)), atol=1e-3)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_augmentation_keeps_shape_and_passes_a_gradient(name):
    images = noise(4).requires_grad_()
    result = AUGMENTATIONS[name](images, 0.5, draws(4))
    assert result.shape == images.shape
    result.square().sum().backward()
    assert images.grad.isfinite().all()
    assert (images.grad.flatten(1).abs().sum(1) > 0).all()


def test_none_is_the_identity():
    images = noise(4)
    assert torch.equal(AUGMENTATIONS["none"](images, 1.0, draws(4)), images)


# DiffAugment


def test_translation_moves_the_content_and_fills_with_zero():
    images = noise(200) + 2  # no zeros in the content
    result = diffaugment(images, draws(200), ("translation",))
    padded = F.pad(images, (2, 2, 2, 2))
    seen = set()
    for image, source in zip(result, padded):
        shifts = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if torch.equal(image, source[:, y : y + 16, x : x + 16])
        ]
        assert len(shifts) == 1
        seen.update(shifts)
    assert len(seen) == 25  # every shift of up to an eighth of the side occurs


def test_colour_of_diffaugment_is_brightness_then_saturation_then_contrast():
    images = noise(5)
    light, chroma, spread = draws(5).uniform(3, 1, 1, 1).unbind(1)
    expected = images + light - 0.5
    grey = expected.mean(1, keepdim=True)
    expected = grey + (expected - grey) * chroma * 2
    mean = expected.mean((1, 2, 3), keepdim=True)
    expected = mean + (expected - mean) * (spread + 0.5)
    assert torch.allclose(diffaugment(images, draws(5), ("color",)), expected, atol=1e-6)


def test_the_policy_applies_its_steps_in_its_order():
    images, draw = noise(8), draws(8)
    expected = cutout(diffaugment(images, draw, ("translation",)), draw)
    assert torch.equal(diffaugment(images, draws(8), ("translation", "cutout")), expected)
    draw = draws(8)
    expected = cutout(images, draw)
    expected = diffaugment(expected, draw, ("translation",))
    assert torch.equal(diffaugment(images, draws(8), ("cutout", "translation")), expected)
    assert torch.equal(diffaugment(images, draws(8), ()), images)


def test_cutout_masks_a_clipped_square_of_half_the_side():
    images = noise(4000, channels=1) + 2
    result = cutout(images, draws(4000))
    masked = result[:, 0] == 0
    assert torch.equal(result[~masked[:, None]], images[~masked[:, None]])
    # Mean over the 17 edges of the square's visible side: 116 / 17 pixels of 16.
    assert masked.float().mean().item() == pytest.approx((116 / 17 / 16) ** 2, abs=0.004)
    rows, columns = masked.any(2).sum(1), masked.any(1).sum(1)
    assert torch.equal(masked.sum((1, 2)), rows * columns)
    assert (rows.min().item(), rows.max().item()) == (4, 8)


def test_cutout_with_an_odd_side_is_centred_on_pixels():
    masked = cutout(torch.ones(500, 1, 9, 9), draws(500), size=1 / 3)[:, 0] == 0
    assert set(masked.any(2).sum(1).tolist()) == {2, 3}


# The controller


def test_p_rises_and_falls_at_the_documented_speed_and_stays_a_probability():
    control = AdaptiveAugment(0.6, images_to_full=1000)
    for expected in (0.4, 0.8, 1.0, 1.0):
        control.observe(torch.tensor(7.0), 10)
        control.update(400)
        assert control.p == pytest.approx(expected)
    assert control.leaking
    for expected in (0.75, 0.5, 0.25, 0.0, 0.0):
        control.observe(5, 10)
        control.update(250)
        assert control.p == pytest.approx(expected)
    assert not control.leaking


def test_the_mean_sign_is_over_all_observations_since_the_last_update():
    control = AdaptiveAugment(0.5, images_to_full=100)
    control.observe(8, 8)
    control.observe(-1, 8)  # together 7 / 16, below the target
    control.update(50)
    assert control.p == 0
    control.observe(5, 8)  # the old ones no longer count
    control.update(50)
    assert control.p == 0.5


def test_p_stays_at_the_target_and_without_observations():
    control = AdaptiveAugment(0.5, images_to_full=100)
    control.p = 0.25
    control.update(50)
    control.observe(4, 8)
    control.update(50)
    assert control.p == 0.25


def test_the_sums_of_other_processes_decide_where_given():
    control = AdaptiveAugment(0.5, images_to_full=100)
    control.observe(torch.tensor(-8.0), 8)
    control.update(50, reduce=lambda totals: totals + torch.tensor([24.0, 8.0]))
    assert control.p == 0.5  # 16 / 16, not -8 / 8


def test_the_state_round_trip_is_exact_in_the_middle_of_an_interval():
    control, resumed = (AdaptiveAugment(0.5, images_to_full=7000) for _ in range(2))
    control.observe(8, 8)
    control.update(64)
    control.observe(torch.tensor(3.0), 8)
    state = control.state_dict()
    assert all(type(value) is float for value in state.values())
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    for each in (control, resumed):
        each.observe(6, 8)
        each.update(64)
    assert resumed.p == control.p == 128 / 7000
    assert resumed.state_dict() == control.state_dict()
