"""`probe.Selector`: backbones join a training loop of one's own, as they join the bundled one."""

import json

import pytest
import torch
import torch.multiprocessing
from inputs import write_images, write_judged_bank

import probe

OPTIONS = probe.RankOptions(num=60)


@pytest.fixture
def judged_bank(tmp_path):
    return write_judged_bank(tmp_path)


def blue(n, seed):
    """Images that every backbone tells from the reals, by their colour and layout."""
    images = torch.randint(0, 60, (n, 3, 32, 32), generator=torch.Generator().manual_seed(seed))
    images[:, 2] += 150
    return images.to(torch.uint8)


def test_backbones_join_one_by_one_until_there_are_k(reals, judged_bank):
    selector = probe.Selector(reals, judged_bank, k=2, options=OPTIONS, offline=True)
    critics = probe.Discriminators()
    first, second, third = (selector.step(critics, blue) for _ in range(3))
    names = [first.added[0].name, second.added[0].name]
    assert len(set(names)) == 2 and list(critics.backbones) == names
    assert first.leaderboard.ranked[0].name == names[0]
    assert names[0] not in [row.name for row in second.leaderboard.rows if row.role != "null"]
    assert first.why.startswith(f"Best of the unused at telling reals from fakes: {names[0]} (")
    assert third.added == () and third.why == "2 in use, as many as wanted."
    assert third.leaderboard is None
    head = critics.head(names[1])
    assert {id(p) for p in head.parameters()} <= {id(p) for p in critics.parameters()}
    assert critics.generator_loss(torch.rand(2, 3, 32, 32) * 2 - 1).isfinite()


def test_fixed_and_greedy(reals, judged_bank):
    critics = probe.Discriminators()
    fixed = probe.Selector(reals, judged_bank, strategy="fixed", k=2, options=OPTIONS, offline=True)
    assert len(fixed.step(critics, blue).added) == 2 and fixed.step(critics, blue).added == ()
    critics = probe.Discriminators()
    greedy = probe.Selector(
        reals, judged_bank, strategy="greedy", k=2, options=OPTIONS, offline=True
    )
    assert greedy.step(critics, blue).joint is None
    assert greedy.step(critics, blue).joint is not None


def test_a_generator_that_no_backbone_sees_stops_it(tmp_path, judged_bank):
    source = probe.open_images(write_images(tmp_path / "many", 120, seed=5))
    images = source.load(range(120), 32).images
    selector = probe.Selector(images[:60], judged_bank, k=1, options=OPTIONS, offline=True)
    found = selector.step(probe.Discriminators(), lambda n, seed: images[60 + seed % 20 :][:n])
    assert found.added == () and "beyond luck" in found.why


def test_a_state_goes_on(reals, judged_bank):
    def new():
        selector = probe.Selector(reals, judged_bank, k=2, options=OPTIONS, offline=True)
        return selector, probe.Discriminators()

    selector, critics = new()
    selector.step(critics, blue)
    states = json.loads(json.dumps(selector.state_dict())), critics.state_dict()
    again, others = new()
    again.load_state_dict(states[0], others)
    others.load_state_dict(states[1])
    assert others.backbones == critics.backbones and again.history == selector.history
    added = [s.step(c, blue).added for s, c in ((selector, critics), (again, others))]
    assert added[0] == added[1] and len(added[0]) == 1
    with pytest.raises(probe.ProbeError, match="of the strategy progressive with k=2; this"):
        probe.Selector(reals, judged_bank, k=3).load_state_dict(states[0], others)
    with pytest.raises(probe.ProbeError, match="not the state of probe.Selector"):
        again.load_state_dict({"k": 2}, others)


def test_what_cannot_be_selected(reals, judged_bank):
    with pytest.raises(probe.ProbeError, match="Did you mean 'progressive'"):
        probe.Selector(reals, judged_bank, strategy="progresive")
    many = probe.Selector(reals, judged_bank, k=9, options=OPTIONS, offline=True)
    with pytest.raises(probe.ProbeError, match="--k: 9 backbones are wanted and 3 can be used"):
        many.step(probe.Discriminators(), blue)
    with pytest.raises(probe.ProbeError, match=r"sample\(.*uint8 .* is expected"):
        many.step(probe.Discriminators(), lambda n, seed: blue(n, seed).float())
    with pytest.raises(probe.ProbeError, match="Unknown backbone 'grid'"):
        probe.Discriminators().head("grid")


def work(rank, folder, bank, reals):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    critics = probe.Discriminators()
    selector = probe.Selector(reals, bank, k=2, options=OPTIONS, offline=True)
    selector.step(critics, blue, device="cpu")
    torch.save((critics.backbones, selector.state_dict()), f"{folder}/{rank}.pt")
    torch.distributed.barrier()  # the group is still there
    torch.distributed.destroy_process_group()


def test_processes_agree(reals, judged_bank, tmp_path):
    given = (str(tmp_path), str(judged_bank), str(reals))
    torch.multiprocessing.spawn(work, given, nprocs=2)
    one, two = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert one == two and len(one[0]) == 1
    critics = probe.Discriminators()
    probe.Selector(reals, judged_bank, k=2, options=OPTIONS, offline=True).step(critics, blue)
    assert critics.backbones == one[0]
