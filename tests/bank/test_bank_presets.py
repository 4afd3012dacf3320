"""Presets: the bank's own, those that follow from an entry, and a user's."""

import pytest

from probe.bank.file import load_bank
from probe.errors import UsageError

BANK = load_bank()


def chosen(*names, bank=BANK):
    return [spec.name for spec in bank.select(names)]


def test_the_paper_s_networks():
    assert chosen("@paper") == [
        "clip-vit-b32", "dino-vit-b16", "vgg16-antialiased", "swin-t-moby", "swin-t-upernet",
        "swin-t-cascade",
    ]  # fmt: skip


def test_a_preset_joins_names_and_patterns_in_bank_order():
    assert chosen("dino-*", "@offline", "random-resnet18#0") == [
        "efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2", "mobilenetv2",
        "craft-vgg16", "dino-vit-b16", "random-resnet18#0",
    ]  # fmt: skip


def test_commercial_use_goes_by_the_licence():
    names = chosen("@commercial")
    assert "clip-vit-b32" in names and "siglip-vit-b16" in names
    assert not {"hiera-t-mae", "vgg16-antialiased", "dinov3-vit-s16"} & set(names)
    assert not any(name.startswith("random") for name in names)


def test_a_preset_of_one_s_own(cli, bank):
    text = bank.read_text().replace("  license: none\n", "  license: none\n  presets: [mine]\n", 1)
    bank.write_text(text)
    assert [s.name for s in load_bank(bank).select(["@mine"])] == [load_bank(bank).specs[0].name]
    result = cli("bank", "check", "--bank", bank, "--backbones", "@mine")
    assert result.code == 0 and len(result.out.splitlines()) == 1


def test_an_unknown_preset_names_the_nearest_and_an_empty_one_is_refused(cli, bank):
    with pytest.raises(UsageError, match="Unknown preset 'smal'. Did you mean 'small'?"):
        BANK.select(["@smal"])
    result = cli("bank", "check", "--bank", bank, "--backbones", "@commercial")
    assert result.code == 2 and "no entry of the bank is in the preset @commercial" in result.err
    bank.write_text(bank.read_text().replace("license: none", "license: none\n  presets: [No]", 1))
    result = cli("bank", "list", "--bank", bank)
    assert result.code == 1 and "presets" in result.err
