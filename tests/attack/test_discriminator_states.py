"""Hostile and damaged states of `probe.Discriminators`: refused in a sentence, nothing changed."""

import io
import json
import pickle
import random

import pytest
import safetensors.torch
import torch
from torch import nn

import probe
from probe.bank.base import Backbone, InputSpec
from probe.discriminators.state import EXTRA

HEAD = "networks.1.head.network.final.out.bias"


class Net(nn.Module):
    """Two maps and a vector."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, 2, padding=1)

    def levels(self, x):
        first = torch.tanh(self.one(x))
        second = torch.tanh(self.two(first))
        return [first, second], second.mean(dim=(2, 3))


def critics():
    made = probe.Discriminators(probe.DiscriminatorOptions(augmentation="none"))
    for name in ("net", "other"):
        fed = InputSpec(16, (0.5,) * 3, (0.5,) * 3)
        shapes = [(4, 16, 16), (6, 8, 8)]
        made.add(Backbone(name, Net(), fed, dim=6, map_shapes=shapes), digest=f"of {name}")
    return made


def images(seed=0):
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def good():
    made = critics()
    optimizer = made.optimizer()
    made.discriminator_loss(images(), images(1)).backward()
    optimizer.step()
    return made.state_dict()


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def refusal(state, load=probe.Discriminators.load_state_dict):
    """Return the sentence that refuses a state; neither the heads nor the rest has changed."""
    made = critics()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    with pytest.raises(probe.ProbeError) as caught:
        load(made, state)
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".") and len(text) < 400
    assert same(made.state_dict(), before)
    return text


def extra(good, change):
    """Return a state whose record has been changed."""
    record = json.loads(bytes(good[EXTRA].tolist()))
    record = change(record) or record
    data = json.dumps(record).encode()
    return good | {EXTRA: torch.tensor(list(data), dtype=torch.uint8)}


def test_the_state_itself_is_taken(good):
    made = critics()
    made.load_state_dict(good)
    assert same(made.state_dict(), good)


def test_tensors_that_do_not_fit(good):
    assert HEAD in good
    shape = f"{HEAD} has the shape (7,) and not (1,)"
    for value, found in [
        (torch.zeros(7), shape),
        (torch.tensor([float("nan")]), f"{HEAD} holds NaN or infinite numbers"),
        (torch.tensor([float("inf")]), f"{HEAD} holds NaN or infinite numbers"),
        (torch.zeros(1, dtype=torch.int64), f"{HEAD} is not a tensor of numbers"),
        (torch.zeros(1).to_sparse(), f"{HEAD} is not a tensor of numbers"),
        (torch.zeros(1, device="meta"), f"{HEAD} is not a tensor of numbers"),
        (torch.zeros(1, dtype=torch.complex64), f"{HEAD} is not a tensor of numbers"),
        ([0.0], f"{HEAD} is not a tensor of numbers"),
        (None, f"{HEAD} is not a tensor of numbers"),
        # 4 PB of the same number: must not be read.
        (torch.zeros(1).expand(10**15), "has the shape (1000000000000000,)"),
    ]:
        text = refusal(good | {HEAD: value})
        assert text.startswith("This state does not fit the heads: ") and found in text
    assert f"{HEAD} is missing" in refusal({k: v for k, v in good.items() if k != HEAD})
    assert "networks.9.x is not one of theirs" in refusal(good | {"networks.9.x": torch.zeros(1)})
    assert "\\x1b[31m is not one" in refusal(good | {"\x1b[31m": torch.zeros(1)})


def test_records_that_are_damaged(good):
    def member(**fields):
        return lambda record: record["members"][0].update(fields)

    for change, found in [
        (member(weight=float("nan")), "'members.0.weight'"),
        (member(target=2), "'members.0.target'"),
        (member(norm="batch"), "'members.0.norm'"),
        (member(adaptive={"p": 7, "signs": 0, "count": 0}), "'members.0.adaptive.p'"),
        (member(adaptive=[]), "'members.0.adaptive'"),
        (member(name=3), "'members.0.name'"),
        (lambda record: record.update(counters=[1, -1, 0]), "'counters.1'"),
        (lambda record: record.update(counters=[1]), "'counters"),
        (lambda record: record.pop("num_classes") and None, "'num_classes' is missing"),
        (lambda record: record.update(version=2), "has version 2; version 1 is expected"),
        (lambda record: record.update(version=[[]]), "has version something of type list"),
        (lambda record: [record], "is damaged"),
        (lambda record: record["members"].append(record["members"][0]), "on net, other, net;"),
        (lambda record: record["members"].pop() and None, "is of discriminators on net; these"),
        (member(digest="three"), "was trained on other weights, input or taps of net"),
        (member(name="a\x1b[31m" * 1000), "a\\x1b[31m"),
    ]:
        assert found in refusal(extra(good, change))


def test_bytes_that_are_no_record(good):
    def bytes_(data):
        return good | {EXTRA: torch.tensor(list(data), dtype=torch.uint8)}

    whole = bytes(good[EXTRA].tolist())
    for data in (b"", whole[:-1], whole[: len(whole) // 2], b"\xff" * 9, b"[" * 100_000, b"{}"):
        assert "The state of the discriminators" in refusal(bytes_(data))
    for value in (
        None, "text", torch.zeros(3), torch.zeros(2, 2, dtype=torch.uint8),
        torch.zeros(3, dtype=torch.uint8, device="meta"),
    ):  # fmt: skip
        assert "not the state of probe.Discriminators" in refusal(good | {EXTRA: value})
    endless = torch.zeros(1, dtype=torch.uint8).expand(10**12)
    assert "too long" in refusal(good | {EXTRA: endless})
    assert "not the state of probe.Discriminators" in refusal({})


def test_a_larger_model_is_as_strict(good):
    class Model(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

    def load(made, state):
        Model(made).load_state_dict({f"inner.{k}": v for k, v in state.items()}, strict=False)

    assert "holds NaN" in refusal(good | {HEAD: torch.tensor([float("nan")])}, load)
    assert f"{HEAD} is missing" in refusal({k: v for k, v in good.items() if k != HEAD}, load)
    made = critics()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    Model(made).load_state_dict({}, strict=False)  # nothing of ours in it
    assert same(made.state_dict(), before)


def test_flipped_bits_and_cut_files(good, rounds, tally):
    """A file that still loads gives finite heads; anything else is refused."""
    files = {"safetensors": safetensors.torch.save({k: v.contiguous() for k, v in good.items()})}
    torch.save(good, stream := io.BytesIO())
    files["torch"] = stream.getvalue()
    rng = random.Random(0)
    for kind, data in files.items():
        for _ in range(rounds(8, 300)):
            broken = bytearray(data)
            if rng.random() < 0.3:
                del broken[rng.randrange(len(data)) :]
            else:
                broken[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            tally(f"{kind}: {outcome(kind, bytes(broken))}")


def outcome(kind, data):
    try:
        if kind == "torch":
            state = torch.load(io.BytesIO(data), weights_only=True)
        else:
            state = safetensors.torch.load(data)
    except (RuntimeError, ValueError, EOFError, KeyError, OSError, pickle.UnpicklingError,
            safetensors.SafetensorError):  # fmt: skip
        return "refused by the reader"
    made = critics()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    try:
        made.load_state_dict(state)
    except probe.ProbeError as error:
        assert "\n" not in str(error) and same(made.state_dict(), before)
        return "refused"
    assert all(v.isfinite().all() for v in made.parameters())
    return "loaded"


def test_hostile_images():
    made = critics()
    before = made.get_extra_state()
    for bad in (
        torch.zeros(1, device="meta").expand(4, 3, 16, 16), torch.zeros(4, 3, 16, 16).to_sparse(),
        torch.zeros(4, 3, 16, 16, dtype=torch.complex64), torch.zeros(4, 3, 10**9, 0),
        torch.zeros(3), None, "images", images().numpy(),
        torch.full((4, 3, 16, 16), float("inf")), torch.zeros(4, 3, 16, 16, dtype=torch.bool),
    ):  # fmt: skip
        for call in (made.generator_loss, lambda x: made.discriminator_loss(x, images())):
            with pytest.raises(probe.ProbeError) as caught:
                call(bad)
            assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    assert len(before) == len(made.get_extra_state())
