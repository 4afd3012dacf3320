"""What `--cfg auto` and the presets fill in, and the schedule."""

import pytest
from contexts import new_state

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


@pytest.mark.parametrize("cfg", ["auto", *PRESETS])
def test_the_default_batch_divides_over_any_number_of_processes(cfg):
    for resolution in (32, 64, 256, 1024):
        for processes in range(1, 70):
            found = plan(resolution, processes=processes, cfg=cfg, channel_base=32768).config
            each, left = divmod(found.batch, processes)
            assert left == 0 and each % min(found.mbstd_group, each) == 0


def test_a_preset_keeps_its_batch_where_it_divides():
    assert plan(cfg="paper256", processes=8).config.batch == 16
    shared = plan(cfg="small64", processes=3)
    assert shared.config.batch == 24 and shared.config.gamma == pytest.approx(0.1 * 32 / 24)
    assert shared.reasons["batch"][1] == "preset small64's 32, shared out over 3 processes"


def test_small_images_get_a_small_network():
    assert plan(32).config.channel_base < plan(64).config.channel_base < 16384
    assert plan(64).config.pl_weight == 0


COLUMNS = ("batch", "mbstd_group", "channel_base", "lr", "gamma", "ema_kimg", "ema_rampup",
           "map_layers", "pl_weight", "style_mixing", "d_architecture")  # fmt: skip
# The reference's numbers.
PUBLISHED = {
    "paper256": (16, 4, 16384, 0.002, 1, 10, 0, 8, 2, 0.9, "resnet"),
    "paper256_2fmap": (16, 4, 32768, 0.002, 1, 10, 0, 8, 2, 0.9, "resnet"),
    "paper512": (16, 4, 32768, 0.0025, 0.5, 20, 0, 8, 2, 0.9, "resnet"),
    "paper1024": (16, 4, 32768, 0.002, 2, 10, 0, 8, 2, 0.9, "resnet"),
    "stylegan2": (16, 4, 32768, 0.002, 10, 10, 0, 8, 2, 0.9, "resnet"),
    "cifar": (64, 32, 32768, 0.0025, 0.01, 500, 0.05, 2, 0, 0, "orig"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_has_the_published_numbers(name):
    found = plan(cfg=name).config
    assert tuple(getattr(found, column) for column in COLUMNS) == PUBLISHED[name]
    fixed = (found.channel_max, found.z_dim, found.w_dim, found.r1_interval, found.pl_interval)
    assert fixed == (512, 512, 512, 16, 4)
    assert (found.target, found.target_heads) == (0.6, 0.3)


@pytest.mark.parametrize(
    ("name", "options", "generator", "discriminator"),
    [
        ("cifar", {}, (0.0020, 0.991992), (0.0025 * 16 / 17, 0.990586)),
        ("paper256", {}, (0.0016, 0.991992), (0.002 * 16 / 17, 0.990586)),
        ("paper512", {"gamma": 0.0}, (0.0020, 0.991992), (0.0025 * 16 / 17, 0.990586)),
        ("auto", {"pl_weight": 0.0, "pl_interval": 8}, (0.0025 * 8 / 9, 0.991106),
         (0.0025 * 16 / 17, 0.990586)),
    ],
)  # fmt: skip
def test_rates_are_scaled_for_lazy_regularisation_even_where_its_weight_is_zero(
    name, options, generator, discriminator
):
    """n steps in n + 1 are not regularised: lr · n/(n + 1), betas to that power."""
    made = plan(16, cfg=name, channel_base=128, channel_max=8, **options).config
    state = new_state(made)
    for optimizer, (lr, beta) in (
        (state.generator_optimizer, generator),
        (state.members[0].optimizer, discriminator),
    ):
        (group,) = optimizer.param_groups
        assert group["lr"] == pytest.approx(lr)
        assert group["betas"] == (0, pytest.approx(beta, abs=1e-6))
        assert group["eps"] == 1e-8 and not group["weight_decay"]


def test_the_discriminator_has_the_presets_architecture():
    for options, expected in (({"cfg": "cifar"}, "orig"), ({}, "resnet"),
                              ({"d_architecture": "orig"}, "orig")):  # fmt: skip
        made = plan(16, channel_base=128, channel_max=8, **options).config
        network = new_state(made).members[0].network
        assert network.discriminator.init_kwargs["architecture"] == expected
    with pytest.raises(UsageError, match="--d-architecture: 'skip' is unknown"):
        TrainConfig(d_architecture="skip")


def test_a_run_from_before_there_was_a_choice_of_architecture_is_known_again():
    assert "d_architecture" not in plan(cfg="paper256").config.record()
    assert plan(cfg="cifar").config.record()["d_architecture"] == "orig"


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
