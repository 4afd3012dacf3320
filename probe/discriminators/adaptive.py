"""The controller of ADA's augmentation probability."""

from collections.abc import Callable, Mapping

import torch

from probe.devices import send


class AdaptiveAugment:
    """The probability p, adjusted by how often the discriminator calls real images real.

    Karras et al. 2020b, section 3: p rises while r, the mean sign of the logits of real images,
    is above the target, and falls while it is below.

    Args:
        target: target value of r.
        interval: steps between calls of `update`; the caller has to respect it.
        images_to_full: number of images in which p can go from 0 to 1.
    """

    def __init__(self, target: float, interval: int = 4, images_to_full: float = 500_000) -> None:
        self.target, self.interval, self.images_to_full = target, interval, images_to_full
        self.p = 0.0
        self.clear()

    def clear(self) -> None:
        """Drop the observations since the last update."""
        self._signs = torch.zeros((), dtype=torch.float64)
        self._count = 0

    @property
    def leaking(self) -> bool:
        """Return whether p is so high that augmentations show in generated images (paper: 0.8)."""
        return self.p > 0.8

    def observe(self, real_logits_sign_sum: torch.Tensor | float, count: int) -> None:
        """Add the sum of the signs of `count` logits of real images, without synchronising."""
        signs = torch.as_tensor(real_logits_sign_sum).detach().double()
        self._signs = send(self._signs, signs.device) + signs
        self._count += count

    def update(
        self,
        batch_images_since_last: int,
        reduce: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        """Move p by the share of `images_to_full` seen since the last call, within [0, 1].

        Without observations, p stays as it is.

        Args:
            batch_images_since_last: images of the global batches since the last call.
            reduce: sums over processes; takes and returns (sum of signs, count), float64, on the
                device of the observed sums.
        """
        signs, count = self._totals(reduce)
        if count:
            excess = signs / count - self.target
            step = batch_images_since_last / self.images_to_full
            self.p = min(max(self.p + (excess > 0) * step - (excess < 0) * step, 0.0), 1.0)
        self.clear()

    def gather(self, reduce: Callable[[torch.Tensor], torch.Tensor], *, keep: bool) -> None:
        """Collect the observations of all processes in one of them, so its state is complete.

        Args:
            reduce: see `update`.
            keep: whether this is that process; the others clear theirs.
        """
        signs, count = self._totals(reduce)
        self.clear()
        if keep:
            self._signs, self._count = torch.tensor(signs, dtype=torch.float64), int(count)

    def _totals(self, reduce: Callable[[torch.Tensor], torch.Tensor] | None) -> list[float]:
        totals = torch.stack([self._signs, torch.full_like(self._signs, self._count)])
        return (reduce(totals) if reduce else totals).tolist()

    def state_dict(self) -> dict[str, float]:
        """Return p and this process's observations since the last update, as plain floats."""
        return {"p": self.p, "signs": self._signs.item(), "count": float(self._count)}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore a state; target and speed stay as given at construction."""
        self.p = float(state["p"])
        self._signs = torch.tensor(state["signs"], dtype=torch.float64)
        self._count = int(state["count"])
