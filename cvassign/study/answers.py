# LLM-assisted: prompts P12, P15, see report.md
"""What the text-aligned twin and its ImageNet network say of the project's gallery, stored.

    python -m cvassign.study.answers

scores every picture and every close-up of its photos by both and writes results/twin/answers.npz
(Keras's network comes through npm). Notebooks read that file: they show the same on every machine,
and load neither network.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cvassign import assets
from cvassign.clip import gallery, imagenet
from cvassign.command import Parser
from cvassign.files import replacing
from cvassign.study import twin

FILE, PROGRAM = twin.FOLDER / "answers.npz", "python -m cvassign.study.answers"
MODELS = ("imagenet", "twin")
K = 10  # answers that are stored a picture


def key(picture: gallery.Picture) -> str:
    """A picture's name in the file: its path below gallery/, for a window with the window's left,
    top, right and bottom in percent of the photo's sides ("tuxpaint/a.webp#30-30-70-70")."""
    path = picture.path.relative_to(gallery.BUNDLED).as_posix()
    box = "-".join(f"{100 * v:.0f}" for v in picture.cropped[1]) if picture.cropped else ""
    return f"{path}#{box}" if box else path


def pool() -> list[gallery.Picture]:
    """Every picture that has stored answers: the project's own, and close-ups of its photos."""
    pictures = gallery.read(gallery.BUNDLED)
    return pictures + gallery.close_ups(pictures)


@dataclass(frozen=True)
class Answers:
    """One model's answers on n pictures, for figures and tables in the place of the model."""

    name: str  # the model's
    rows: dict[str, int]  # `key` of a picture -> its row
    indices: Tensor  # (n, K) classes, the best first
    probabilities: Tensor  # (n, K)
    ranks: Tensor  # (n,) place of the picture's own class among the 1000, 1 for the best

    def of(self, pictures: list[gallery.Picture]) -> "Answers":
        """The same for some pictures, in their order; KeyError for one that was not scored."""
        keys = [key(p) for p in pictures]
        if missing := [k for k in keys if k not in self.rows]:
            which = f"{missing[0]} and {len(missing) - 1} more"
            raise KeyError(f"no answers are stored for {which}: run `{PROGRAM}`")
        rows = torch.tensor([self.rows[k] for k in keys])
        parts = (part[rows] for part in (self.indices, self.probabilities, self.ranks))
        return Answers(self.name, {k: i for i, k in enumerate(keys)}, *parts)

    def topk(self, pictures: list[gallery.Picture], k: int = 5) -> list[list[tuple[str, float]]]:
        """See `imagenet.Classifier`; k up to 10."""
        some = self.of(pictures)
        return imagenet.named(some.probabilities[:, :k], some.indices[:, :k])


def load(model: str, file: Path = FILE) -> Answers:
    """The stored answers of one of `MODELS`; FileNotFoundError when nothing is stored."""
    if model not in MODELS:
        raise ValueError(f"expected a model of {', '.join(MODELS)}, got {model!r}")
    if not file.exists():
        raise FileNotFoundError(f"expected {file}: run `{PROGRAM}`")
    with np.load(file) as stored:
        rows = {k: i for i, k in enumerate(stored["keys"].tolist())}
        types = {"indices": int, "probabilities": np.float32, "ranks": int}
        parts = [torch.from_numpy(stored[f"{model}/{k}"].astype(t)) for k, t in types.items()]
        return Answers(str(stored[f"{model}/name"]), rows, *parts)


def compute(model, pictures: list[gallery.Picture]) -> dict[str, np.ndarray]:
    """What `Answers` holds, by a model with `logits` and `name`, in the file's types."""
    logits, own = model.logits(pictures), torch.tensor([[p.index] for p in pictures])
    order = logits.sort(descending=True, stable=True).indices  # (n, 1000)
    return {
        "name": np.array(model.name),
        "indices": order[:, :K].numpy().astype(np.uint16),
        "probabilities": logits.softmax(-1).gather(1, order[:, :K]).numpy().astype(np.float16),
        "ranks": ((order == own).int().argmax(-1) + 1).numpy().astype(np.uint16),
    }


def write(models: dict, pictures: list[gallery.Picture], file: Path) -> None:
    """Scores the pictures by every model and writes the file."""
    arrays = {
        "keys": np.array([key(p) for p in pictures]),
        # of the picture's file: a test sees when a picture has changed since
        "crc32": np.array([zlib.crc32(p.path.read_bytes()) for p in pictures], dtype=np.uint32),
    }
    for name, model in models.items():
        arrays |= {f"{name}/{part}": a for part, a in compute(model, pictures).items()}
    with replacing(file) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **arrays)


def models() -> dict:
    """The network and its twin, which share a picture's features; the cache keeps these. AssetError
    when Keras's network cannot be had."""
    network = imagenet.from_keras(assets.fetch("resnet50-keras"))
    network = twin.Features.of(network, assets.cache_dir())
    return dict(zip(MODELS, (network, twin.load(network).zero_shot())))


def main(arguments: list[str] | None = None) -> None:
    """Scores all pictures and writes the answers."""
    parser = Parser("cvassign.study.answers", __doc__)
    parser.add_argument("--out", type=Path, default=FILE, help="the file to write")
    args = parser.parse_args(arguments)
    write(models(), pool(), args.out)
    print(args.out)


if __name__ == "__main__":
    main()
