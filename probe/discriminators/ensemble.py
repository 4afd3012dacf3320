"""Discriminators on frozen backbones as one module, for any training loop."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from probe.bank.base import Backbone
from probe.bank.file import load_bank
from probe.bank.spec import BackboneSpec
from probe.discriminators.checks import (
    Watch,
    check_heads,
    check_images,
    one_hot_labels,
    warn_if_positive,
)
from probe.discriminators.critic import P_INTERVAL, SMOOTHED, Critic
from probe.discriminators.frozen import load_frozen, require_ranked
from probe.discriminators.gradient import generator_loss
from probe.discriminators.member import make_adam
from probe.discriminators.options import DiscriminatorOptions
from probe.discriminators.state import (
    EXTRA,
    Saved,
    SavedAdaptive,
    SavedMember,
    pack_record,
    require_same,
    require_tensors,
    unpack_record,
)
from probe.discriminators.step import Minibatch, Step
from probe.discriminators.vision import VisionNetwork, norm_of, vision_network
from probe.errors import UsageError
from probe.probing.leaderboard import Leaderboard, read_leaderboards
from probe.probing.strategies import fixed
from probe.processes import Processes, joined_processes
from probe.registry import lookup

if TYPE_CHECKING:
    from probe.probing.rank import Ranking

Options = DiscriminatorOptions | Mapping[str, DiscriminatorOptions] | None


class Discriminators(nn.Module):
    """An ensemble of discriminators, each a trainable head on a frozen backbone.

    Parameters, gradients and `state_dict` are those of the heads. Backbones stay frozen, in eval
    mode and in float32, whatever is called on this module, and follow the images to their device.
    The caller's autocast applies. Random numbers depend only on the seed and on how many losses
    were computed in training mode; under `torch.distributed` they are drawn for the global batch,
    and each process needs the same number of images.

    `module(reals, fakes)` is `discriminator_loss`. Under DistributedDataParallel compute that loss
    through the wrapper, which averages the heads' gradients, and `generator_loss` through its
    `.module`: it has no gradient for the heads.

    Args:
        options: of members added without their own.
        num_classes: number of classes the heads are conditioned on, 0 for none.
        gamma: weight of R1 at the features of the reals, added to the discriminator's loss in
            every `options.r1_interval`-th call; 0 turns it off.
        checkpoint: recompute each backbone in its backward pass instead of keeping its activations
            until then. Saves memory in float16 and with `logits`, where several backbones wait for
            one backward pass.

    Attributes:
        statistics: losses, mean logits and p of the last calls, by the names that `probe train`
            logs; scalars on the device, without a graph.
        weights: backbone → weight of its loss; 1 unless set.
    """

    def __init__(
        self,
        options: DiscriminatorOptions | None = None,
        *,
        num_classes: int = 0,
        gamma: float = 0.0,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.options = options or DiscriminatorOptions()
        self.num_classes, self.gamma, self.checkpoint = num_classes, gamma, checkpoint
        self.networks = nn.ModuleList()
        self.weights: dict[str, float] = {}
        self.statistics: dict[str, torch.Tensor] = {}
        self.critics: list[Critic] = []  # the losses and augmentations that go with `networks`
        self._digests: dict[str, str] = {}
        self._watch = Watch()
        self._calls = self._judged = self._images = 0
        self.register_load_state_dict_pre_hook(Discriminators.check_state)

    @classmethod
    def from_names(
        cls,
        names: str | Sequence[str],
        *,
        bank: Path | str | None = None,
        options: Options = None,
        offline: bool = False,
        **kwargs: Any,
    ) -> "Discriminators":
        """Return discriminators on backbones of a bank.

        Args:
            names: entries of the bank, "dinov2-vit-s14, clip-vit-b32" or a list.
            bank: the bank file; default ./modelbank.yaml or else the packaged one.
            options: of all, or by name.
            offline: never download weights.
            **kwargs: `num_classes`, `gamma`, `checkpoint`.

        Raises:
            UsageError: an unknown or repeated name, or the bank's evaluator.
            BackboneUnavailable: weights are missing; says what gets them.
        """
        wanted = names.split(",") if isinstance(names, str) else names
        return cls._of([name.strip() for name in wanted], bank, options, offline, kwargs)

    @classmethod
    def from_ranking(
        cls,
        ranking: "Ranking | Path | str",
        k: int = 2,
        *,
        bank: Path | str | None = None,
        options: Options = None,
        offline: bool = False,
        **kwargs: Any,
    ) -> "Discriminators":
        """Return discriminators on the k best backbones of a ranking, as K-fixed picks them.

        Fewer than k if fewer tell reals from fakes beyond luck. Reals' targets are smoothed for
        those whose probe had an accuracy above 0.9, unless the options say otherwise.

        Args:
            ranking: what `probe.rank` returned, or the folder it wrote.
            k: how many.
            bank: the bank file; default the one that was ranked.
            options: of all, or by name.
            offline: never download weights.
            **kwargs: `num_classes`, `gamma`, `checkpoint`.

        Raises:
            UsageError: fewer than k backbones have a score, or none is above chance.
            BackboneUnavailable: weights are missing, or are not those that were ranked.
        """
        if isinstance(ranking, str | Path):
            board = read_leaderboards(Path(ranking))[0]
        else:
            board = ranking.leaderboard
        names = fixed([board], k)
        if not names:
            raise UsageError(
                "No backbone of this ranking tells reals from fakes beyond luck. Rank with more "
                "images, or choose by name with Discriminators.from_names."
            )
        bank = board.config.get("bank") if bank is None else bank
        return cls._of(names, bank, options, offline, kwargs, board)

    @classmethod
    def _of(
        cls,
        names: Sequence[str],
        bank: Path | str | None,
        options: Options,
        offline: bool,
        kwargs: Mapping[str, Any],
        board: Leaderboard | None = None,
    ) -> "Discriminators":
        """Return discriminators by name, with what a leaderboard says of them."""
        whole = load_bank(bank)
        own = options if isinstance(options, Mapping) else {}
        if strangers := sorted(set(own) - set(names)):
            raise UsageError(f"options: {strangers[0]} is not among {', '.join(names)}.")
        made = cls(None if isinstance(options, Mapping) else options, **kwargs)
        rows = {} if board is None else {row.name: row for row in board.rows}
        for name in names:
            (spec,) = whole.select([name])
            if board is not None:
                require_ranked(spec, board, offline)
            made.add_entry(
                spec,
                options=own.get(name),
                accuracy=rows[name].accuracy if name in rows else None,
                offline=offline,
            )
        return made

    @property
    def backbones(self) -> dict[str, str]:
        """The backbones in use and the digests of what decides their features, in order."""
        return dict(self._digests)

    def add_entry(
        self,
        spec: BackboneSpec,
        *,
        options: DiscriminatorOptions | None = None,
        accuracy: float | None = None,
        offline: bool = False,
    ) -> nn.Module:
        """Load a bank entry and add a discriminator on it; see `add`.

        Raises:
            UsageError: the entry is the bank's evaluator.
            BackboneUnavailable: its weights are missing; says what gets them.
        """
        if spec.role == "evaluator":
            raise UsageError(
                f"{spec.name} is the bank's evaluator: its distances would flatter a generator "
                "trained against it. Choose another backbone, or change its role in the bank."
            )
        backbone, digest = load_frozen(spec, offline=offline)
        return self.add(backbone, digest=digest, options=options, accuracy=accuracy)

    def add(
        self,
        backbone: Backbone,
        *,
        digest: str = "",
        options: DiscriminatorOptions | None = None,
        accuracy: float | None = None,
    ) -> nn.Module:
        """Add a discriminator; those in use do not change.

        Args:
            backbone: the frozen network, on any device.
            digest: of what decides its features, for `load_state_dict` to compare.
            options: its own; default those of the ensemble.
            accuracy: of its probe, from 0 to 1, which decides whether targets are smoothed.

        Returns:
            Its head. Give the parameters to the optimizer: `optimizer.add_param_group`.

        Raises:
            UsageError: the backbone is in use already.
        """
        if backbone.name in self._digests:
            raise UsageError(f"{backbone.name} is in use already; name each backbone once.")
        chosen = options or self.options
        weight = next(self.parameters(), torch.empty(0))
        network = vision_network(chosen, backbone, c_dim=self.num_classes, device=weight.device)
        network.checkpoint = self.checkpoint
        backbone.to(memory_format=torch.channels_last)
        target = SMOOTHED if chosen.is_smoothed(accuracy or 0.0) else 1.0
        self.networks.append(network)
        self.critics.append(Critic(backbone.name, network, chosen, target=target))
        self._digests[backbone.name] = digest
        self.weights[backbone.name] = 1.0
        return network.head

    def head(self, name: str) -> nn.Module:
        """Return the head on a backbone, whose parameters an optimizer needs.

        Raises:
            UsageError: it is not in use.
        """
        heads = {network.backbone.name: network.head for network in self.vision()}
        return lookup(heads, name, "backbone")

    def optimizer(self) -> torch.optim.Adam:
        """Return the heads' optimizer as `probe train` makes it; any other will do as well."""
        return make_adam(self, self.options.lr, self.options.r1_interval)

    def forward(
        self,
        reals: torch.Tensor,
        fakes: torch.Tensor,
        real_labels: torch.Tensor | None = None,
        fake_labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return `discriminator_loss`."""
        return self.discriminator_loss(reals, fakes, real_labels, fake_labels)

    def generator_loss(
        self, fakes: torch.Tensor, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the generator's loss: the weighted sum over the members.

        Its gradient at the images is computed by this call, one member after the other, so that
        only one backbone's activations are in memory; `backward` passes it on to the generator.
        With autocast to float16 `backward` does all of it. There is no second derivative.

        Args:
            fakes: (N, 3, H, W) in [-1, 1], of any float dtype and of at least 8 pixels; images
                that are not square are resized to squares. Gradients flow to them.
            labels: classes, integers (N,) or one-hot (N, num_classes), if the heads have classes.

        Returns:
            A scalar; 0 without members.

        Raises:
            UsageError: the images or labels are not as described.
            ProbeError: a member's loss is NaN or infinite; on a GPU raised up to 4 calls later.
        """
        batch = self._batch(fakes, labels, "fakes")
        step = self._step(fakes.device)
        loss, losses = generator_loss(self.critics, batch, step, self.weights)
        for critic in self.critics:
            self._record(critic, f"Loss/G/{critic.label}", losses[f"Loss/G/{critic.label}"])
        self._watch.settle()
        return loss

    def discriminator_loss(
        self,
        reals: torch.Tensor,
        fakes: torch.Tensor,
        real_labels: torch.Tensor | None = None,
        fake_labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the heads' loss: the weighted sum over the members, with R1 if it is due.

        In training mode ADA's p moves with what the heads say of the reals.

        Args:
            reals: images as in `generator_loss`; no gradient flows to them.
            fakes: as many, likewise.
            real_labels: as in `generator_loss`.
            fake_labels: likewise.

        Returns:
            A scalar; 0 without members.

        Raises:
            UsageError, ProbeError: as in `generator_loss`.
        """
        real = self._batch(reals.detach() if _is_tensor(reals) else reals, real_labels, "reals")
        fake = self._batch(fakes.detach() if _is_tensor(fakes) else fakes, fake_labels, "fakes")
        if len(reals) != len(fakes):
            raise UsageError(f"{len(reals)} reals and {len(fakes)} fakes: give as many of each.")
        step = self._step(reals.device)
        losses = []
        for critic in self.critics:
            judged = critic.discriminator_loss(real, fake, step)
            weight = self.weights.get(critic.name, 1.0)
            losses.append(weight * self._record(critic, f"Loss/D/{critic.label}", judged.loss))
            if self.training:
                self.statistics |= critic.observe(judged)
            if self.gamma and self._judged % self.options.r1_interval == 0:
                penalty = critic.feature_penalty(real, step)
                factor = weight * self.gamma / 2 * self.options.r1_interval
                name = f"Loss/r1_penalty/{critic.label}"
                losses.append(factor * self._record(critic, name, penalty))
        if self.training:
            self._adapt(len(reals), step.processes)
        self._watch.settle()
        if self.training and self._judged == 1:
            warn_if_positive(reals)
        if losses:
            return torch.stack(losses).sum()
        return torch.zeros((), device=reals.device, requires_grad=True)

    def logits(
        self, images: torch.Tensor, labels: torch.Tensor | None = None, *, purpose: str = "logits"
    ) -> dict[str, list[torch.Tensor]]:
        """Return what each member says of images, augmented as in training.

        Gradients flow to the images and the heads.

        Args:
            images: as in `generator_loss`.
            labels: likewise.
            purpose: "reals" and "fakes" name the images in messages; part of the random stream.

        Returns:
            Backbone → levels of logits, (N, h, w) each and (N,) last; positive for "real".

        Raises:
            UsageError: as in `generator_loss`.
        """
        batch = self._batch(images, labels, purpose)
        step = self._step(images.device)
        found = {}
        for critic in self.critics:
            found[critic.name] = critic.network(
                critic.augment(batch.images, purpose, step), batch.c
            )
        self._watch.settle()
        return found

    def _batch(self, images: torch.Tensor, labels: torch.Tensor | None, what: str) -> Minibatch:
        """Check images and labels, and make the images square."""
        check_images(images, what)
        check_heads(self, images)
        self._watch.images(images, what)
        for network in self.vision():
            network.follow(images.device)
        side = max(images.shape[2:])
        if min(images.shape[2:]) != side:
            images = F.interpolate(
                images.float(), (side, side), mode="bilinear", antialias=True, align_corners=False
            )
        c = one_hot_labels(labels, len(images), self.num_classes, what)
        if labels is not None:
            self._watch.labels(labels, self.num_classes, what)
        return Minibatch(images, c)

    def _step(self, device: torch.device) -> Step:
        """Return the settings of one call, whose random streams no other call has."""
        step = Step(self._calls, None, joined_processes(device))
        self._calls += self.training
        return step

    def _record(self, critic: Critic, name: str, loss: torch.Tensor) -> torch.Tensor:
        """Keep a member's loss for logs and checks; returns it in float32."""
        self.statistics[name] = loss.detach()
        self._watch.loss(critic.name, loss)
        return loss.float()

    def _adapt(self, count: int, processes: Processes) -> None:
        """Move every p in each fourth call."""
        self._judged += 1
        self._images += count * processes.size
        if self._judged % P_INTERVAL:
            return
        for critic in self.critics:
            if critic.is_adaptive:
                critic.adaptive.update(self._images, processes.sum)
                self.statistics[f"Progress/augment/{critic.name}"] = torch.tensor(critic.adaptive.p)
        self._images = 0

    def vision(self) -> Iterator[VisionNetwork]:
        """Yield the heads with their backbones, in order."""
        for network in self.networks:
            assert isinstance(network, VisionNetwork)
            yield network

    def _saved(self) -> Saved:
        """Return what the state holds besides the heads."""
        members = tuple(
            SavedMember(
                name=critic.name,
                digest=self._digests[critic.name],
                norm=norm_of(critic.network),
                weight=self.weights.get(critic.name, 1.0),
                target=critic.target,
                generator_target=critic.generator_target,
                adaptive=SavedAdaptive(**critic.adaptive.state_dict()),
            )
            for critic in self.critics
        )
        return Saved(self.num_classes, (self._calls, self._judged, self._images), members)

    def get_extra_state(self) -> torch.Tensor:
        """Return names and digests of the backbones, targets, weights, every p and the counters."""
        return pack_record(self._saved())

    def set_extra_state(self, state: Any) -> None:
        """Restore what `get_extra_state` returned.

        Raises:
            ProbeError: the state is of other backbones, weights, heads or classes; names what
                differs.
        """
        saved = unpack_record(state)
        require_same(saved, self._saved())
        self._calls, self._judged, self._images = saved.counters
        for critic, member in zip(self.critics, saved.members, strict=True):
            self.weights[critic.name] = member.weight
            critic.target, critic.generator_target = member.target, member.generator_target
            critic.adaptive.load_state_dict(asdict(member.adaptive))

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Restore the heads and the rest of the state, always strictly, or change nothing.

        Raises:
            ProbeError: the state is of other backbones, weights, heads or classes, or its tensors
                do not fit or hold NaN; names what is wrong.
        """
        return super().load_state_dict(state_dict, strict=True, assign=assign)

    def check_state(self, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
        """Check a whole state before PyTorch copies its first tensor; also in a larger model.

        Raises:
            ProbeError: see `load_state_dict`.
        """
        own = {name: value for name, value in state.items() if str(name).startswith(prefix)}
        if prefix and not own:
            return  # PyTorch knows whether a larger model may lack a part
        given = {name[len(prefix) :]: value for name, value in own.items()}
        require_same(unpack_record(given.pop(EXTRA, None)), self._saved())
        heads = {name: value for name, value in self.state_dict().items() if name != EXTRA}
        require_tensors(given, heads)


def _is_tensor(given: object) -> bool:
    return isinstance(given, torch.Tensor)
