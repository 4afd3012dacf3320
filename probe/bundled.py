"""The images, generator and names bundled with the package."""

from pathlib import Path

BUNDLED = Path(__file__).parent / "demo"
DEMO_REALS = BUNDLED / "reals.zip"
DEMO_GENERATOR = BUNDLED / "generator.safetensors"
BN_IMAGES = BUNDLED / "bn_images.zip"
DEMO_BACKBONES = (
    "efficientnet-lite0",
    "efficientnet-lite1",
    "mobilenetv2",
    "random-efficientnet-lite0#0",
    "random-resnet18#[01]",
)
