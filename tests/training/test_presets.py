"""What `--cfg auto` and the presets fill in, and the schedule."""

import pytest

from probe.errors import UsageError
from probe.training.config import TrainConfig
from probe.training.presets import PRESETS, make_plan


def plan(resolution=256, images=5000, processes=1, inherited=False, **options):
    return make_plan(
        TrainConfig(**options),
        resolution=resolution,
        images=images,
        processes=processes,
        inherited=inherited,
    )


def test_auto_follows_the_published_formulas():
    found = plan(256, processes=2).config
    assert found.batch == 2 * min(4096 // 256, 32)
    assert found.gamma == pytest.approx(0.0002 * 256**2 / 32)
    assert found.ema_kimg == pytest.approx(10)
    assert (found.channel_base, found.map_layers, found.mbstd_group) == (16384, 2, 4)
    assert plan(1024, processes=8).config.lr == 0.002
    assert plan(128, processes=8).config.batch == 64


def test_small_images_get_a_small_network():
    assert plan(32).config.channel_base < plan(64).config.channel_base < 16384
    assert plan(64).config.pl_weight == 0


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_complete(name):
    found = plan(cfg=name)
    open_ones = {k for k, v in vars(found.config).items() if v is None}
    assert open_ones == {"kimg", "stage_kimg", "aug_p"}
    assert found.config.gamma == PRESETS[name]["gamma"]


def test_what_the_user_gives_stays():
    found = plan(cfg="paper256", gamma=3.0, batch=8, lr=0.1)
    assert (found.config.gamma, found.config.batch, found.config.lr) == (3.0, 8, 0.1)
    assert not {"gamma", "batch", "lr"} & found.reasons.keys()
    assert found.reasons["channel_base"][1] == "preset paper256"


def test_a_presets_gamma_goes_with_its_batch():
    assert plan(cfg="paper256", batch=32).config.gamma == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("images", "ends"),
    [(300, [200, 1200, 2200, 3200]), (1000, [500, 4500, 5500, 6500]),
     (9000, [500, 8500, 10500, 12500])],
)  # fmt: skip
def test_stage_lengths_come_from_the_image_count(images, ends):
    progressive = plan(images=images, strategy="progressive")
    assert [end / 1000 for end in progressive.stage_ends] == ends
    fixed = plan(images=images, strategy="fixed")
    assert [end / 1000 for end in fixed.stage_ends] == [ends[0], ends[-1]]
    assert plan(images=images).stage_ends == (ends[-1] * 1000,)


def test_kimg_keeps_the_proportions():
    found = plan(images=1000, strategy="progressive", kimg=65)
    assert [end / 1000 for end in found.stage_ends] == pytest.approx([5, 45, 55, 65])


def test_given_networks_need_no_warm_up():
    assert plan(images=1000, strategy="progressive", inherited=True).stage_ends[0] == 0


def test_given_stage_lengths_are_taken():
    found = plan(strategy="progressive", k=2, stage_kimg="0.5,4,1.5")
    assert found.stage_ends == (500, 4500, 6000)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stage_kimg": "1,2", "strategy": "progressive"}, "--stage-kimg: '1,2' should be 4"),
        ({"stage_kimg": "1,x", "strategy": "fixed"}, "--stage-kimg"),
        ({"stage_kimg": "1", "kimg": 3.0}, "Give one of them"),
        ({"batch": 0}, "--batch"),
        ({"kimg": -1.0}, "--kimg"),
        ({"resolution": 48}, "--resolution"),
        ({"strategy": "magic"}, "--strategy: 'magic' is unknown"),
        ({"aug_heads": "x"}, "--aug-heads"),
        ({"aug_p": 1.5}, "--aug-p"),
        ({"eval_num": 3}, "--eval-num"),
        ({"k": 0}, "--k"),
    ],
)
def test_impossible_options_name_their_flag(options, words):
    with pytest.raises(UsageError, match=words):
        TrainConfig(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch": 6, "mbstd_group": 4}, "--mbstd-group"),
        ({"batch": 9, "processes": 2}, "does not divide over 2 processes"),
    ],
)
def test_a_batch_must_divide(options, words):
    with pytest.raises(UsageError, match=words):
        plan(**options)
