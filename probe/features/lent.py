"""A reference in place of real images: a source that has no pixels, and the features that it lends.

Lent features stand in front of those in the store and never enter it: a store holds only what this
program computed from the images themselves.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from probe.bank.fingerprint import changed
from probe.errors import BackboneUnavailable, UsageError
from probe.features.extract import FINGERPRINT, Extraction, Failure
from probe.features.moments import Moments
from probe.features.reference import Reference
from probe.features.space import CIRCUMSTANCES, changed_keys
from probe.features.store import FeatureSpace
from probe.files import digest_json
from probe.images.base import Batch, Broken, Header

NO_PIXELS = "a reference holds no images"


class Lent(FeatureSpace):
    """A feature space in which the rows of a reference's sample come from the reference.

    Args:
        space: the one of the same backbone in the store.
        reference: holds the rows.
        name: the backbone's.
    """

    def __init__(self, space: FeatureSpace, reference: Reference, name: str) -> None:
        super().__init__(space.folder.parents[1], space.record)
        self.key = digest_json({"space": space.key, "lent": reference.about.sha256})
        self._reference, self._name = reference, name
        self._rows = {key: row for row, key in enumerate(reference.keys)}
        reference.features(name)  # checked once, here

    def missing(self, keys: Sequence[str]) -> list[int]:
        """Return the positions in `keys` that have no row here or in the reference."""
        own = [i for i, key in enumerate(keys) if key not in self._rows]
        return [own[i] for i in super().missing([keys[i] for i in own])]

    def read(self, keys: Sequence[str]) -> np.ndarray:
        """Return the rows of all keys, float32 (n, d); see `FeatureSpace.read`."""
        lent = [i for i, key in enumerate(keys) if key in self._rows]
        if not lent:
            return super().read(keys)
        rows = self._reference.features(self._name)[[self._rows[keys[i]] for i in lent]]
        if len(lent) == len(keys):
            return rows
        found = np.empty((len(keys), rows.shape[1]), np.float32)
        found[lent] = rows
        own = sorted({*range(len(keys))} - {*lent})
        found[own] = super().read([keys[i] for i in own])
        return found

    @cached_property
    def moments(self) -> Moments:
        """The moments of all images of the reference."""
        return self._reference.moments(self._name)

    @property
    def circumstances(self) -> list[str]:
        """What was different when the reference was made, and changes no more than rounding."""
        return changed_keys(self._reference.about.backbones[self._name].space, self.record)

    @property
    def lender(self) -> str:
        """The reference's path or URL."""
        return self._reference.name

    def refusal(self) -> Failure | None:
        """Return why the features do not go together, known once the network was loaded here."""
        theirs = self._reference.about.backbones[self._name].facts.get(FINGERPRINT)
        ours = self.facts().get(FINGERPRINT)
        if theirs is None or ours is None or changed(theirs, ours) is None:
            return None
        return Failure(
            "unavailable",
            f"a library computes it in another way here than where {self.lender} was made",
            "make the reference again, or install its versions of the libraries",
        )


class ReferenceSource:
    """The images of a reference as an `ImageSource`: keys and names, and no pixels.

    The images are numbered so that the reference's own seed gives its own order back, and with it
    the scores that a ranking of the images has.

    Attributes:
        reference: the file.
        name: what the user typed.
    """

    def __init__(self, reference: Reference, order: Sequence[int]) -> None:
        """Take a reference and the order in which its seed draws so many images."""
        self.reference, self.name = reference, reference.name
        self._at = dict(zip(order, range(len(reference.keys)), strict=True))

    def __len__(self) -> int:
        """Return the number of images in the sample."""
        return len(self._at)

    @property
    def labels(self) -> Sequence[int] | None:
        """Classes of the sample, if the images had any."""
        labels = self.reference.labels
        return None if labels is None else [labels[self._at[i]] for i in range(len(self))]

    @property
    def classes(self) -> int | None:
        """Number of classes according to the images' labels."""
        return self.reference.about.classes

    @property
    def notes(self) -> Sequence[str]:
        """Those of the images."""
        return self.reference.about.notes

    @property
    def resolution(self) -> int:
        """Side in pixels of the images as the features saw them."""
        return self.reference.about.resolution

    @property
    def images(self) -> int:
        """Number of images that the moments are of."""
        return self.reference.about.images

    def identity(self) -> dict[str, Any]:
        """Return where the features come from."""
        about = self.reference.about
        return {
            "kind": "reference",
            "path": self.name,
            "candidates": len(self),
            "of": about.source,
            "images": about.images,
            "sample_digest": about.sample_digest,
        }

    def keys(self, indices: Sequence[int]) -> list[str]:
        """Return the images' content keys."""
        return [self.reference.keys[self._at[i]] for i in indices]

    def marks(self, indices: Sequence[int]) -> list[str]:
        """Return the keys."""
        return self.keys(indices)

    def captions(self, indices: Sequence[int]) -> list[str]:
        """Return the images' names."""
        return [self.reference.names[self._at[i]] for i in indices]

    def headers(self, indices: Sequence[int]) -> list[Header | None]:
        """Return None for each image: nothing is known of their encoding."""
        return [None for _ in indices]

    def load(self, indices: Sequence[int], resolution: int) -> Batch:
        """Return no pixels; every image counts as broken."""
        broken = {i: Broken(self.captions([i])[0], NO_PIXELS) for i in indices}
        return Batch(torch.empty(0, 3, resolution, resolution, dtype=torch.uint8), [], broken)

    def extraction(self, indices: Sequence[int]) -> Extraction:
        """Return images as if they had gone through every backbone."""
        return Extraction(indices=list(indices), keys=self.keys(indices))

    def require_resolution(self, resolution: int) -> None:
        """Check that the features are of images at a resolution.

        Raises:
            UsageError: they are not.
        """
        if resolution != self.resolution:
            raise UsageError(
                f"{self.name} holds features at {self.resolution} px, and the comparison is at "
                f"{resolution} px. Add --resolution {self.resolution}, or make the reference with "
                f"--resolution {resolution}."
            )

    def lend(self, name: str, space: FeatureSpace) -> Lent:
        """Return a backbone's feature space with the reference's rows in it.

        Raises:
            BackboneUnavailable: the reference has none, or they belong to another space.
            ImagesError: they are damaged.
        """
        kept = self.reference.about.backbones.get(name)
        if kept is None:
            raise BackboneUnavailable(
                f"{self.name} has no features of it",
                "make the reference again with it among --backbones",
            )
        different = [
            key for key in changed_keys(kept.space, space.record) if key not in CIRCUMSTANCES
        ]
        if different:
            told = " and ".join(_said(key, kept.space, space.record) for key in different)
            remedy = "make the reference again with this bank"
            if different == ["precision"]:
                remedy = f"run it with --precision {kept.space['precision']}"
            raise BackboneUnavailable(f"{self.name} was made with other {told}", remedy)
        return Lent(space, self.reference, name)


def _said(key: str, theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """Return what differs, with both values if they are short."""
    one, other = theirs.get(key), ours.get(key)
    if isinstance(one, dict) and isinstance(other, dict):
        return f"{key} ({', '.join(changed_keys(one, other))})"
    short = [value[:8] if isinstance(value, str) else value for value in (one, other)]
    return f"{key} ({short[0]}, here {short[1]})"


def borrow(
    source: ReferenceSource, spaces: Mapping[str, FeatureSpace]
) -> tuple[dict[str, FeatureSpace], dict[str, Failure]]:
    """Return name → feature space with the reference's rows in it, and why others have none."""
    lent, refused = dict[str, FeatureSpace](), dict[str, Failure]()
    for name, space in spaces.items():
        try:
            lent[name] = source.lend(name, space)
        except BackboneUnavailable as error:
            refused[name] = Failure(error.status, error.reason, error.remedy)
    return lent, refused


def refusals(spaces: Mapping[str, FeatureSpace]) -> dict[str, Failure]:
    """Return name → why lent features are not those of the network here; see `Lent.refusal`."""
    found = {name: s.refusal() for name, s in spaces.items() if isinstance(s, Lent)}
    return {name: failure for name, failure in found.items() if failure is not None}


def borrowed_remarks(spaces: Mapping[str, FeatureSpace]) -> list[str]:
    """Return a sentence if other versions or devices computed the lent features; else nothing."""
    lent = [space for space in spaces.values() if isinstance(space, Lent)]
    different = sorted({key for space in lent for key in space.circumstances})
    if not different:
        return []
    return [
        f"The {' and '.join(different)} differ from those that {lent[0].lender} was made with: "
        "features may be slightly off."
    ]
