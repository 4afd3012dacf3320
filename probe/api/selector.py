"""Choose discriminators while a generator of any kind trains."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from probe.api.context import open_context
from probe.api.inputs import Images, open_given
from probe.bank.file import load_bank
from probe.devices import choose_precision
from probe.discriminators.ensemble import Discriminators
from probe.errors import ProbeError
from probe.events import OnEvent, ignore
from probe.generators.callables import CallableSource, SampleFunction
from probe.images.base import ImageSource
from probe.probing.config import RankOptions
from probe.probing.strategies import STRATEGIES
from probe.registry import lookup
from probe.training.selection import Chooser, Selection


class Selector:
    """Ranks the backbones that are not in use on the present generator, and adds the best.

    The same strategies, rankings and rules as in `probe train`. In programs of several processes
    all of them call `step`; they share the work and add the same backbones.

    Args:
        reals: the real images; anything that `probe.rank` takes.
        bank: the bank file; default ./modelbank.yaml or else the packaged one.
        strategy: "progressive" (one in each step), "greedy" (that which adds most to those in
            use), "fixed" (k in the first step) or "none".
        k: how many backbones in all.
        backbones: names or patterns to choose from; default all candidates.
        options: numbers, seed and precision of the rankings.
        offline: never download weights.
        on_event: called with progress events; see `probe.events`.

    Attributes:
        history: what each step decided, as plain values, oldest first.

    Raises:
        ProbeError: an unknown strategy or backbone, or images that cannot be opened.
    """

    def __init__(
        self,
        reals: Images,
        bank: Path | str | None = None,
        *,
        strategy: str = "progressive",
        k: int = 3,
        backbones: Sequence[str] | str | None = None,
        options: RankOptions | None = None,
        offline: bool = False,
        on_event: OnEvent = ignore,
    ) -> None:
        lookup(STRATEGIES, strategy, "strategy")
        self.reals: ImageSource = open_given(reals, "reals", on_event)
        whole = load_bank(bank)
        self.specs = {s.name: s for s in whole.select(backbones) if s.role == "candidate"}
        self.strategy, self.k = strategy, k
        self.options = replace(options or RankOptions(), k=k)
        self.offline, self.on_event = offline, on_event
        self.history: list[dict[str, Any]] = []

    def step(
        self, critics: Discriminators, sample: SampleFunction, *, device: str = "auto"
    ) -> Selection:
        """Rank the unused backbones on the generator's images, and add the chosen ones.

        Give the parameters of the new heads, `critics.head(name)`, to the optimizer.

        Args:
            critics: the discriminators; changed in place.
            sample: `(n, seed) → uint8 (n, 3, H, W)` of the present generator.
            device: "auto", "cpu", "cuda" or "cuda:N", for the ranking.

        Returns:
            What was added and why, with the leaderboard (on the first process).

        Raises:
            UsageError: fewer than k backbones can be used, in the first step.
            ProbeError: see `probe.rank`.
        """
        with open_context(
            device, precision=self.options.precision, offline=self.offline,
            on_event=self.on_event, shared=True,
        ) as ctx:  # fmt: skip
            ctx = ctx.in_precision(choose_precision(ctx.precision, ctx.device))
            chooser = Chooser(self.strategy, self.k, list(self.specs.values()), self.options, ctx)
            selection = chooser.choose(list(critics.backbones), self.reals, self._fakes(sample))
        for choice in selection.added:
            critics.add_entry(
                self.specs[choice.name], accuracy=choice.accuracy, offline=self.offline
            )
        record = {**selection.record(), "leaderboard": None, "joint": None}
        self.history.append(record | {"accuracy": {c.name: c.accuracy for c in selection.added}})
        return selection

    def _fakes(self, sample: SampleFunction) -> CallableSource:
        """Return the present generator's images, at most as many as there are reals."""
        return CallableSource(
            sample,
            name="sample",
            count=min(self.options.num, len(self.reals)),
            seed=self.options.seed,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return strategy, k and history as plain values."""
        return {"strategy": self.strategy, "k": self.k, "history": list(self.history)}

    def load_state_dict(self, state: dict[str, Any], critics: Discriminators) -> None:
        """Restore a state, and add what it had added to new `critics`, before their own state.

        Raises:
            ProbeError: the state is of another strategy or k, or not a selector's.
        """
        try:
            theirs, history = (state["strategy"], state["k"]), list(state["history"])
            added = [item for record in history for item in record["accuracy"].items()]
        except (AttributeError, KeyError, TypeError) as error:
            raise ProbeError(
                "This is not the state of probe.Selector. Pass what its state_dict() returned."
            ) from error
        if theirs != (self.strategy, self.k):
            raise ProbeError(
                f"This state is of the strategy {theirs[0]} with k={theirs[1]}; this selector has "
                f"{self.strategy} with k={self.k}."
            )
        for name, accuracy in added:
            if name not in critics.backbones:
                spec = lookup(self.specs, name, "backbone")
                critics.add_entry(spec, accuracy=accuracy, offline=self.offline)
        self.history = history
