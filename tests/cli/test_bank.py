"""`probe bank fetch` and `probe bank add`: what is fetched stays what it was; new entries work."""

import functools
import http.server
import json
import threading

import pytest
import timm
import torch

from probe.bank import licences, lock
from probe.bank.file import load_bank, packaged_bank
from probe.bank.spec import UNKNOWN
from probe.bank.weights import download
from probe.bank.weights import find as weights
from probe.errors import BackboneUnavailable

ENTRY = """
- name: {name}
  source: timm
  model: test_resnet
  weights: {{url: '{url}'}}
  input: 32
  mean: [0.5, 0.5, 0.5]
  std: [0.5, 0.5, 0.5]
  task: none
  data: none
  license: none
"""


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder behind an address, with the weights of a tiny network."""
    monkeypatch.setattr(download, "_unreachable", {})
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()
    torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), folder / "net.pth")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_fetch_says_what_came_and_locks_it(cli, served, tmp_path):
    folder, address = served
    bank = tmp_path / "mine.yaml"
    bank.write_text(
        ENTRY.format(name="net", url=f"{address}/net.pth")
        + ENTRY.format(name="gone", url=f"{address}/gone.pth")
    )
    first = cli("bank", "fetch", "--bank", bank)
    assert first.code == 3
    assert "fetched" in first.out and "404" in first.out and "Traceback" not in first.err
    locked = json.loads((tmp_path / "mine.lock").read_text())["entries"]
    assert list(locked) == ["net"] and locked["net"]["bytes"] == (folder / "net.pth").stat().st_size
    again = cli("bank", "fetch", "net", "--bank", bank)
    assert again.code == 0 and "was here" in again.out
    assert cli("bank", "check", "--bank", bank, "--backbones", "net").code == 0


def test_other_bytes_than_the_locked_ones_are_refused(cli, served, tmp_path):
    _, address = served
    bank = tmp_path / "mine.yaml"
    bank.write_text(ENTRY.format(name="net", url=f"{address}/net.pth"))
    assert cli("bank", "fetch", "--bank", bank).code == 0
    path = weights.torch_cache_path(f"{address}/net.pth")
    path.write_bytes(path.read_bytes() + b" ")
    for command in ("fetch", "check"):
        result = cli("bank", command, "--bank", bank)
        assert result.code == 3 and "lock file" in result.out + result.err
    path.unlink()  # as the message says
    assert cli("bank", "fetch", "--bank", bank).code == 0


def test_a_lock_holds_only_for_the_place_it_was_made_for(cli, served, tmp_path):
    _, address = served
    bank = tmp_path / "mine.yaml"
    bank.write_text(ENTRY.format(name="net", url=f"{address}/net.pth"))
    assert cli("bank", "fetch", "--bank", bank).code == 0
    assert load_bank(bank).specs[0].sha256 is not None
    bank.write_text(ENTRY.format(name="net", url=f"{address}/other.pth"))
    assert load_bank(bank).specs[0].sha256 is None
    (tmp_path / "mine.lock").write_text("{")
    result = cli("bank", "list", "--bank", bank)
    assert result.code == 1 and "mine.lock" in result.err


def test_a_first_use_without_a_checksum_says_so_and_locks_it(cli, served, tmp_path, reals, fakes):
    """By whatever command; the fingerprint is recorded with it and compared ever after."""
    _, address = served
    bank, locked = tmp_path / "mine.yaml", tmp_path / "mine.lock"
    bank.write_text(ENTRY.format(name="net", url=f"{address}/net.pth"))
    rank = ("rank", "--real", reals, "--gen", fakes, "--bank", bank, "--quiet", "--num", "40")
    first = cli(*rank)
    assert first.code == 0, first.err
    told = " ".join(first.out.split())
    assert f"The checksum of net was not known before; it is now in {locked}" in told
    known = json.loads(locked.read_text())["entries"]["net"]
    assert len(known["sha256"]) == 64 and len(known["fingerprint"]) == 8
    again = cli(*rank)
    assert again.code == 0 and "checksum" not in again.out and "fingerprint" not in again.out
    assert cli("bank", "check", "--bank", bank).out.startswith("net: ok, ")

    # As if a library had changed since.
    known["fingerprint"] = [1.01 * number for number in known["fingerprint"]]
    locked.write_text(json.dumps({"version": 1, "entries": {"net": known}}))
    for command in (rank, ("bank", "check", "--bank", bank),
                    ("metrics", "--real", reals, "--gen", fakes, "--bank", bank, "--backbones",
                     "net", "--quiet")):  # fmt: skip
        result = cli(*command)
        told = " ".join((result.out + result.err).split())
        assert "not those of its recorded fingerprint (off by 0.0099" in told
    assert json.loads(locked.read_text())["entries"]["net"] == known
    locked.write_text(locked.read_text().replace("[", "[NaN, "))
    result = cli("bank", "list", "--bank", bank)
    assert result.code == 1 and "a fingerprint not 8 numbers" in result.err


def test_a_library_that_changes_a_network_is_noticed(cli, served, tmp_path, monkeypatch):
    from probe.bank.sources.timm import TimmNetwork

    _, address = served
    bank = tmp_path / "mine.yaml"
    bank.write_text(ENTRY.format(name="net", url=f"{address}/net.pth"))
    fetched = cli("bank", "fetch", "--bank", bank)
    assert "net: fetched; its checksum was not known before" in fetched.err
    assert "fingerprint" in (tmp_path / "mine.lock").read_text()
    pool = TimmNetwork._pool
    monkeypatch.setattr(TimmNetwork, "_pool", lambda self, x: pool(self, x).tanh())
    result = cli("bank", "check", "--bank", bank)
    assert result.code == 3 and "a library now computes the network" in result.out


def test_a_lock_file_that_cannot_be_written_stops_nothing(cli, served, tmp_path):
    _, address = served
    bank = tmp_path / "mine.yaml"
    bank.write_text(ENTRY.format(name="net", url=f"{address}/net.pth"))
    (spec,) = load_bank(bank).specs
    (tmp_path / "mine.lock").mkdir()  # as on a disk that is full or read-only
    result = cli("bank", "list", "--bank", bank)
    assert result.code == 1 and "mine.lock: cannot be read" in result.err
    assert not lock.recorded(spec, sha256="0" * 64, bytes=1)
    (tmp_path / "mine.lock").rmdir()
    (note,) = lock.first_use_notes({"net": spec})
    assert note.startswith("Warning: the checksum of net is not known")


def test_show_prints_what_is_needed_to_cite_and_its_taps_and_head(cli):
    import yaml

    (shown,) = yaml.safe_load(cli("bank", "show", "swin-t-upernet").out)
    assert "arXiv:2103.14030" in shown["paper"] and shown["license"] == "MIT"
    assert shown["address"].endswith("upernet_swin_tiny_patch4_window7_512x512.pth")
    assert shown["data"] == "ADE20K, from ImageNet-1k" and shown["layers"] == "1, 2, 3, 4"
    assert (shown["features"], shown["maps"]) == (768, "768x8x8")
    assert shown["head"].startswith("map, ")
    (shown,) = yaml.safe_load(cli("bank", "show", "efficientnet-lite0@3").out)
    assert shown["features"] == 40 and "fingerprint" not in shown and shown["found"]
    (shown,) = yaml.safe_load(cli("bank", "show", "random-resnet18#0").out)
    assert shown["features"] == 512 and "address" not in shown


def test_every_entry_can_be_cited():
    for spec in load_bank(packaged_bank()).specs:
        if spec.role != "control":
            assert spec.paper and "arXiv:" in spec.paper
            assert spec.license in licences.NAMES.values()


def test_licences_have_one_spelling_and_are_presets(cli, bank):
    assert licences.named("apache 2.0") == licences.named("APACHE-2.0") == "Apache-2.0"
    assert licences.named("ours") == "ours"
    bank.write_text(bank.read_text().replace("license: none", "license: mit", 1))
    listed = cli("bank", "list", "@mit", "--bank", bank)
    assert listed.code == 0 and "colour" in listed.out and "edges" not in listed.out
    assert "colour" in cli("bank", "list", "@commercial", "--bank", bank).out
    assert cli("bank", "list", "@bsd-3-clause", "--bank", bank).code == 2


def test_the_packaged_bank_is_never_written_to(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = packaged_bank().read_bytes()
    result = cli("bank", "fetch", "efficientnet-lite*")
    assert f"Checksums: {tmp_path / 'cache' / 'modelbank.lock'}" in result.err
    assert cli("bank", "add", "timm:test_resnet.r160_in1k", "--bank", packaged_bank()).code == 2
    assert packaged_bank().read_bytes() == before
    assert not packaged_bank().with_suffix(".lock").exists()


def test_init_copies_the_packaged_bank_and_overwrites_nothing(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("bank", "init").code == 0
    copy = tmp_path / "modelbank.yaml"
    assert copy.read_bytes() == packaged_bank().read_bytes()
    assert "of modelbank.yaml" in cli("bank", "list").err
    copy.write_text("mine")
    again = cli("bank", "init")
    assert again.code == 2 and "exists and is not overwritten" in again.err
    assert copy.read_text() == "mine"
    assert cli("bank", "init", "other.yaml").code == 0 and (tmp_path / "other.yaml").exists()


def test_an_added_entry_is_right_and_everything_else_stays(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = cli("bank", "add", "timm:test_vit.r160_in1k")
    assert result.code == 0, result.err
    bank = tmp_path / "modelbank.yaml"
    assert bank.read_text() == packaged_bank().read_text() + "\n" + result.out
    entry = load_bank(bank).specs[-1]
    assert entry.name == "test_vit.r160_in1k" and entry.weights.hub == "timm/test_vit.r160_in1k"
    licence = licences.named(timm.get_pretrained_cfg("test_vit.r160_in1k").license or UNKNOWN)
    assert (entry.input, entry.data, entry.license) == (160, "ImageNet-1k", licence)
    assert "64 features, last map 64x10x10" in result.out
    again = cli("bank", "add", "timm:test_vit.r160_in1k")
    assert again.code == 1 and "is taken" in again.err
    assert cli("bank", "add", "timm:test_vit.r160_in1k", "--name", "twin").code == 0
    assert load_bank(bank).specs[-1].name == "twin"
    assert cli("bank", "list").code == 0


def test_an_added_clip_has_its_own_activation_and_words_of_ours(cli, tmp_path):
    bank = tmp_path / "mine.yaml"
    bank.write_text("# mine\n" + ENTRY.format(name="net", url="https://a.b/net.pth"))
    result = cli("bank", "add", "open_clip:ViT-B-32/openai", "--bank", bank, "--license", "MIT: so",
                 "--data", "it's \"quoted\"")  # fmt: skip
    assert result.code == 0, result.err
    entry = load_bank(bank).specs[-1]
    assert entry.model == "ViT-B-32-quickgelu" and entry.input == 224
    assert entry.weights.hub == "timm/vit_base_patch32_clip_224.openai"
    assert entry.license == "MIT: so" and entry.data == 'it\'s "quoted"'
    assert bank.read_text().startswith("# mine\n")


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("convnext_tiny", "names no source"),
        ("torch:x", "Unknown source 'torch'"),
        ("timm:convnxt_tiny.fb_in22k", "did you mean 'convnext_tiny'?"),
        ("timm:convnext_tiny.fb_in22", "did you mean 'convnext_tiny.fb_in22k'?"),
        ("open_clip:ViT-B-32/opnai", "did you mean 'ViT-B-32/openai'?"),
        ("timm:", "names no source"),
    ],
)
def test_what_the_libraries_do_not_know_is_refused(cli, tmp_path, reference, words):
    result = cli("bank", "add", reference, "--bank", tmp_path / "mine.yaml")
    assert result.code == 2 and words in result.err
    assert not (tmp_path / "mine.yaml").exists()


def test_an_entry_without_its_weights_says_how_to_get_them(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("bank", "add", "timm:test_vit.r160_in1k").code == 0
    spec = load_bank().specs[-1]
    with pytest.raises(BackboneUnavailable, match=r"probe bank fetch test_vit\.r160_in1k"):
        weights.find_weights(spec, offline=True)


LOCAL = ENTRY.replace("url: '{url}'", "file: '{file}'")


def test_weights_that_are_no_numbers_are_named(cli, tmp_path):
    import timm
    from safetensors.torch import save_file

    good = timm.create_model("test_resnet", num_classes=0).state_dict()
    torch.save(good, tmp_path / "good.pth")
    spoilt = {
        "nan": (next(k for k in good if k.endswith("weight")), torch.nan),
        "inf": (next(k for k in good if k.endswith("bias")), torch.inf),
        "norm": (next(k for k in good if k.endswith("running_var")), torch.nan),
    }
    for name, (key, value) in spoilt.items():
        state = {k: v.clone() for k, v in good.items()}
        state[key].view(-1)[0] = value
        save_file(state, tmp_path / f"{name}.safetensors")

    class Scripted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.full((3, 3), torch.nan))
            self.register_buffer("mask", torch.full((3,), -torch.inf))  # as in attention

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=(2, 3)) @ self.weight

    torch.jit.script(Scripted()).save(str(tmp_path / "program.pt"))
    bank = tmp_path / "mine.yaml"
    bank.write_text(
        LOCAL.format(name="good", file="good.pth")
        + "".join(LOCAL.format(name=n, file=f"{n}.safetensors") for n in ("nan", "inf", "norm"))
        + LOCAL.format(name="program", file="program.pt")
        .replace("timm", "torchscript").replace("test_resnet", "program")
    )  # fmt: skip
    result = cli("bank", "check", "--bank", bank)
    assert result.code == 3
    assert "good: ok" in result.out
    for name, (key, _) in spoilt.items():
        assert f"{name}.safetensors holds NaN or infinite values in model.{key};" in result.out
    assert "program.pt holds NaN or infinite values in module.weight;" in result.out


@pytest.mark.parametrize(
    "name", ["../x", "a: b", "x\x1b[31m", "", "- y", "#", "a" * 101, "naïve", "\udcff"]
)
def test_a_name_that_no_entry_can_have(cli, tmp_path, name):
    bank = tmp_path / "mine.yaml"
    bank.write_text(ENTRY.format(name="net", url="https://a.b/net.pth"))
    before = bank.read_bytes()
    result = cli("bank", "add", "timm:test_vit.r160_in1k", "--bank", bank, "--name", name)
    assert result.code == 2 and "--name: " in result.err
    assert bank.read_bytes() == before


@pytest.mark.parametrize(
    "word", ["no", "null", "1.0", "2024-01-01", "{a: b}", "# x", "é", "a\nb", ""]
)
def test_words_are_read_back_as_they_were_given(cli, tmp_path, word):
    bank = tmp_path / "mine.yaml"
    bank.write_bytes(
        b"\xef\xbb\xbf# mine\r\n" + ENTRY.format(name="net", url="https://a.b/n.pth").encode()
    )
    before = bank.read_bytes()
    result = cli("bank", "add", "timm:test_vit.r160_in1k", "--bank", bank, "--license", word,
                 "--task", word, "--name", "yes")  # fmt: skip
    assert result.code == 0, result.err
    assert bank.read_bytes().startswith(before)
    entry = load_bank(bank).specs[-1]
    assert entry.name == "yes"
    assert not word or entry.task == entry.license == " ".join(word.split())


@pytest.mark.parametrize("end", ["\n...\n", "", "{"])
def test_a_bank_that_nothing_can_be_appended_to_stays(cli, tmp_path, end):
    bank = tmp_path / "mine.yaml"
    entry = ENTRY.format(name="net", url="https://a.b/net.pth")
    bank.write_text(entry + end if end else "[{" + ", ".join(
        line.removeprefix("- ").strip() for line in entry.strip().splitlines()) + "}]")  # fmt: skip
    before = bank.read_bytes()
    result = cli("bank", "add", "timm:test_vit.r160_in1k", "--bank", bank)
    assert result.code == 1 and "mine.yaml:" in result.err, result.err
    assert bank.read_bytes() == before
    if end != "{":  # the bank itself was right
        assert "Add it by hand:" in result.err and "- name: test_vit.r160_in1k" in result.err
