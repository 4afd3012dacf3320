"""Explain why a file yields no generator, and what would help."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from probe.errors import printable

FUNCTION = (
    "draw images with a function of your own (--gen module:function), or give a folder of images "
    "that it has drawn"
)
ANOTHER = "name a file that holds the generator"


@dataclass(frozen=True)
class Stranger:
    """A common kind of file that is not supported.

    Attributes:
        title: its kind, to follow "it holds".
        names: a pattern found in one of its tensors' names.
        classes: a pattern that fully matches one of its modules' class names.
        remedy: what to do, to follow "; ".
    """

    title: str
    names: str = "(?!)"
    classes: str = "(?!)"
    remedy: str = FUNCTION

    @property
    def text(self) -> str:
        """That it is not supported, as part of a sentence."""
        return f"it holds {self.title}, which is not supported; {self.remedy}"

    def matches(self, names: Sequence[str], classes: Sequence[str]) -> bool:
        """Return whether these tensor or class names are of this kind."""
        found, of_class = re.compile(self.names), re.compile(self.classes)
        return any(map(found.search, names)) or any(map(of_class.fullmatch, classes))


# Its tensors have the names of a StyleGAN3, and more.
STYLEGAN_XL = Stranger("a StyleGAN-XL", names=r"(^|\.)mapping\.embed_proj\.", classes=r"Superres.*")
# The first match is reported; discriminators come last because they often accompany a network.
STRANGERS = (
    Stranger(
        "a diffusion model",
        names=r"(^|\.)(down_blocks|up_blocks|mid_block|time_embed(ding)?|diffusion_model)\."
        r"|(^|\.)(input_blocks\.\d+|map_noise|map_layer0|adaLN_modulation)\.",
        classes=r"(EDM|VP|VE|iDDPM)Precond|SongUNet|DhariwalUNet|.*UNet.*|DiT.*",
    ),
    Stranger(
        "an autoencoder of a diffusion model",
        names=r"(^|\.)(post_)?quant_conv\.|(^|\.)(de|en)coder\.(down|up|mid)[._]",
    ),
    STYLEGAN_XL,
    Stranger(
        "a generator of the first StyleGAN",
        names=r"(^|\.)blocks\.4x4\.|(^|\.)progression\.\d+\.|(^|\.)style_mod\.",
    ),
    Stranger("a GigaGAN", names=r"style_to_conv_modulations"),
    Stranger(
        "a network of lucidrains' stylegan2-pytorch or lightweight-gan",
        names=r"^(GE|SE|G)\.(blocks|initial_(conv|block)|layers|net)(\.|$)",
    ),
    Stranger(
        "a StyleGAN2 as BasicSR, GFPGAN or MMGeneration name it",
        names=r"(^|\.)(modulated_conv|style_mlp|style_mapping|constant_input)\.",
    ),
    Stranger("a BigGAN", names=r"(^|\.)blocks\.\d+\.\d+\.bn\d\.gain\.", classes=r"BigGAN.*"),
    Stranger(
        "a discriminator without a generator",
        names=r"(^|\.)(b4\.out|final_linear\.1|b4\.mbstd)\.",
        classes=r".*Discriminator",
        remedy=ANOTHER,
    ),
)


def what_it_is(keys: Sequence[str], names: Sequence[str], classes: Sequence[str]) -> str:
    """Return why no generator can be read from a file, as part of a sentence.

    Args:
        keys: of the dict that it holds, if any.
        names: of its tensors.
        classes: of its modules.
    """
    known = next((kind for kind in STRANGERS if kind.matches(names, classes)), None)
    if known is not None:
        return known.text
    if classes:
        kinds = ", ".join(dict.fromkeys(printable(name, 60) for name in classes[:3]))
        return f"it holds networks of unknown kinds ({kinds}); {FUNCTION}"
    if names:
        some = ", ".join(printable(name, 60) for name in names[:3])
        return f"it holds only the tensors of an unknown network ({some}, …); {FUNCTION}"
    held = ", ".join(printable(key, 60) for key in keys[:8])
    return f"it holds no generator{', only ' + held if held else ''}; {ANOTHER}"
