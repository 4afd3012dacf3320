"""The entry for canonical FID. It is in no bank file, since nobody ranks it or trains with it."""

from probe.bank.spec import BackboneSpec, Weights
from probe.bank.weights.download import torch_cache_path

FID = "inception-fid"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
URLS = (  # two addresses of the same file
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
)
MIDDLE = 128 / 255  # maps bytes to (x - 128) / 128


def fid_spec() -> BackboneSpec:
    """Return the entry for canonical FID, with local weights if there are any."""
    url = next((url for url in URLS if torch_cache_path(url).is_file()), URLS[0])
    return BackboneSpec(
        name=FID,
        source="inception",
        model="inception-2015-12-05",
        weights=Weights(url=url),
        sha256=SHA256,
        input=299,
        mean=(MIDDLE, MIDDLE, MIDDLE),
        std=(MIDDLE, MIDDLE, MIDDLE),
        resize="tf1-bilinear",
        task="classification",
        data="ImageNet-1k",
        license="Apache-2.0",
        role="evaluator",
    )


def how_to_get(spec: BackboneSpec) -> str:
    """Return a clause that says what to download and where to put it."""
    url = str(spec.weights.url)
    return f"download {url} to {torch_cache_path(url)}"
