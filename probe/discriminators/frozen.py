"""A bank entry's network as discriminators use it: its own weights, frozen."""

from probe.bank.base import Backbone
from probe.bank.load import load_backbone, network_digest
from probe.bank.spec import BackboneSpec
from probe.bank.weights.find import weights_digest
from probe.bundled import BN_IMAGES
from probe.errors import BackboneUnavailable
from probe.images.open import open_images
from probe.probing.leaderboard import Leaderboard


def load_frozen(spec: BackboneSpec, *, offline: bool) -> tuple[Backbone, str]:
    """Return an entry's backbone, and the digest of what decides its features.

    Raises:
        BackboneUnavailable: its weights are missing; names the entry and what gets them.
    """
    bn_images = open_images(BN_IMAGES)
    try:
        backbone = load_backbone(spec, offline=offline, bn_images=bn_images)
        return backbone, network_digest(spec, offline=offline, bn_images=bn_images)
    except BackboneUnavailable as error:
        raise BackboneUnavailable(f"{spec.name}: {error.reason}", error.remedy) from error


def require_ranked(spec: BackboneSpec, board: Leaderboard, offline: bool) -> None:
    """Refuse weights other than those that were ranked.

    Raises:
        BackboneUnavailable: they have changed since.
    """
    ranked = board.config.get("weights", {}).get(spec.name)
    bn_images = open_images(BN_IMAGES)
    if ranked not in (None, weights_digest(spec, offline=offline, bn_images=bn_images)):
        raise BackboneUnavailable(
            f"{spec.name}: its weights are not those that were ranked", "rank again"
        )
