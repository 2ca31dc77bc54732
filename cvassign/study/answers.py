# LLM-assisted: prompts P12, P15, see report.md
"""What the text-aligned twin and its ImageNet network say of the project's gallery, stored.

    python -m cvassign.study.answers    # -> results/twin/answers.npz; Keras's network by npm

Notebooks read that file: they show the same on every machine, and load neither network."""

import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cvassign import assets
from cvassign.clip import gallery, imagenet
from cvassign.files import replacing
from cvassign.study import twin

FILE, PROGRAM = twin.FOLDER / "answers.npz", "python -m cvassign.study.answers"
MODELS = ("imagenet", "twin")
K = 10  # answers that are stored a picture


def key(picture: gallery.Picture) -> str:
    """A picture's name in the file: its path below gallery/, for a window with the window's left,
    top, right and bottom in percent of the photo's sides ("tuxpaint/a.webp#30-30-70-70")."""
    path = picture.path.relative_to(gallery.BUNDLED).as_posix()
    if not picture.cropped:
        return path
    return f"{path}#{'-'.join(f'{100 * v:.0f}' for v in picture.cropped[1])}"


def pool() -> list[gallery.Picture]:
    """Every picture that has stored answers: the project's own, and close-ups of its photos."""
    pictures = gallery.read(gallery.BUNDLED)
    return pictures + gallery.close_ups(pictures)


@dataclass(frozen=True)
class Answers:
    """One model's answers on n pictures, for figures and tables in the place of the model."""

    name: str  # the model's
    keys: list[str]  # of the pictures, see `key`
    indices: Tensor  # (n, K) classes, the best first
    probabilities: Tensor  # (n, K)
    ranks: Tensor  # (n,) place of the picture's own class among the 1000, 1 for the best

    def of(self, pictures: list[gallery.Picture]) -> "Answers":
        """The same for some pictures, in their order; KeyError for one that was not scored."""
        place, keys = {k: i for i, k in enumerate(self.keys)}, [key(p) for p in pictures]
        if missing := [k for k in keys if k not in place]:
            which = f"{missing[0]} and {len(missing) - 1} more"
            raise KeyError(f"no answers are stored for {which}: run `{PROGRAM}`")
        at = [place[k] for k in keys]
        return Answers(self.name, keys, self.indices[at], self.probabilities[at], self.ranks[at])

    def logits(self, pictures: list[gallery.Picture]) -> Tensor:
        """The order of the K answers as (n, 1000), K for the best, 0 for what is not among them."""
        best = self.of(pictures).indices
        order = torch.arange(K, 0.0, -1).expand_as(best)
        return torch.zeros(len(best), 1000).scatter(1, best, order)

    def topk(self, pictures: list[gallery.Picture], k: int = 5) -> list[list[tuple[str, float]]]:
        """See `imagenet.Classifier`; k up to 10."""
        some = self.of(pictures)
        return imagenet.named(some.probabilities[:, :k], some.indices[:, :k])


def load(model: str, file: Path = FILE) -> Answers:
    """The stored answers of one of `MODELS`; FileNotFoundError when nothing is stored."""
    if not file.exists():
        raise FileNotFoundError(f"expected {file}: run `{PROGRAM}`")
    with np.load(file) as stored:
        types = {"indices": int, "probabilities": np.float32, "ranks": int}
        parts = [torch.from_numpy(stored[f"{model}/{k}"].astype(t)) for k, t in types.items()]
        return Answers(str(stored[f"{model}/name"]), stored["keys"].tolist(), *parts)


def write(models: dict, pictures: list[gallery.Picture], file: Path) -> None:
    """Scores the pictures by every model, which has `logits` and `name`, and writes the file."""
    arrays = {
        "keys": np.array([key(p) for p in pictures]),
        # of the picture's file: a test sees when a picture has changed since
        "crc32": np.array([zlib.crc32(p.path.read_bytes()) for p in pictures], dtype=np.uint32),
    }
    own = torch.tensor([[p.index] for p in pictures])
    for name, model in models.items():
        logits = model.logits(pictures)
        order = logits.sort(descending=True, stable=True).indices  # (n, 1000)
        best, ranks = order[:, :K], (order == own).int().argmax(-1) + 1
        arrays[f"{name}/name"] = np.array(model.name)
        arrays[f"{name}/indices"] = best.numpy().astype(np.uint16)
        arrays[f"{name}/probabilities"] = logits.softmax(-1).gather(1, best).half().numpy()
        arrays[f"{name}/ranks"] = ranks.numpy().astype(np.uint16)
    with replacing(file) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **arrays)


def models() -> dict[str, imagenet.Classifier]:
    """The network, Keras's (else AssetError), and its twin, whose logits the cache keeps."""
    network = imagenet.from_keras(assets.fetch("resnet50-keras"))
    network = replace(network, cache=assets.cache_dir(), progress=True)
    return dict(zip(MODELS, (network, twin.load(network))))


if __name__ == "__main__":
    write(models(), pool(), FILE)
    print(FILE)
