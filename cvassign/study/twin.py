# LLM-assisted: prompts P4, P9, P12, P14, P15, see report.md
"""A text-aligned twin of ImageNet's ResNet-50: the same frozen trunk, a small head that puts its
features beside sentences.

"LiT: Zero-Shot Transfer with Locked-image text Tuning" (arXiv 2111.07991) locks the image tower and
trains the text tower; here both towers are locked and a linear head between them is trained, with
CLIP's symmetric contrastive loss (arXiv 2103.00020, figure 3). The head starts as the trunk's own
classifier put into words, so beside that classifier the twin shows what the objective and a few
thousand pictures with words change, all else being equal. It is not CLIP and never called so."""

import copy
import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from cvassign.clip import imagenet
from cvassign.files import replacing

NAME = "text-aligned twin of ResNet-50, 7 templates"  # its classes are sentences' means
FOLDER = Path(__file__).resolve().parents[2] / "results" / "twin"
HEAD, CLASSES = "head.safetensors", "classes.safetensors"
PROGRAM = "python -m cvassign.study.twin_study"
# Each collection of pictures belongs wholly to one part, by a word of its name: pictures of one
# source share a hand and often a template, so a random split would test memory.
PARTS = {
    "train": ("openclipart", "openmoji", "twemoji", "PACS", "ImageNet-Sketch",
              "imagenet-sample-images", "foolbox", "npm:@iconify/json/"),
    "validation": ("Caltech101", "noto-emoji"),  # photos and drawings; emoji
    "test": ("tuxpaint", "gcompris", "fluent-emoji", "fxemoji", "game-icons", "ajschumacher/imagen",
             "Translation-Invariant", "texture-vs-shape", "hendrycks"),
}  # fmt: skip


def parts(source: str) -> list[str]:
    """The parts ("train", "validation", "test") that name a source: one, or none for a new one."""
    return [part for part, words in PARTS.items() if any(w in source for w in words)]


def held_out(pictures: list) -> list:
    """The `gallery.Picture`s of sources that the twin does not know; a new source counts."""
    return [p for p in pictures if not {"train", "validation"} & {*parts(p.source)}]


@dataclass(frozen=True)
class TwinConfig:
    """How a head is trained."""

    renditions: bool = True  # labelled drawings, icons, emoji, …, beside one photo a class
    without: tuple[str, ...] = ()  # sources left out, by a word of their names
    ridge: float = 1.0  # of `put_into_words`
    temperature: float = 4.0  # of the classifier's probabilities, before it is trained
    batch_size: int = 256
    lr: float = 1e-4
    weight_decay: float = 0.05
    max_epochs: int = 60
    patience: int = 10  # epochs without a better validation score, after which training ends


def put_into_words(classes: Tensor, ridge: float) -> Tensor:
    """A vector a class such that a sum weighed by probabilities says these probabilities again.

    Class names lie close together: in a plain mean of their unit vectors T (K, E), weighed by p,
    near names gain from each other. V = T (TᵀT + ridge I)⁻¹ (ridge regression), which is returned,
    makes T Vᵀ p come nearest to p. A large ridge leaves the directions of T itself."""
    t = classes - classes.mean(0)  # what all share tells no class from another
    return torch.linalg.solve(t.T @ t + ridge * torch.eye(t.shape[1]), t.T).T.contiguous()


class Head(nn.Module):
    """The twin's last layer: features (B, 2048) to logits (B, K) by way of unit vectors (B, E) in
    the sentence encoder's space.

    The trunk's own classifier, put into words, is the start: its probabilities weigh vectors of the
    class names, as in "Zero-Shot Learning by Convex Combination of Semantic Embeddings" (arXiv
    1312.5650). A trained layer adds a correction, in the beginning none. `fc`, the classifier's
    last layer, the unit vectors `classes` (K, E) and their words are kept fixed."""

    def __init__(self, fc: nn.Linear, classes: Tensor, config: TwinConfig):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # CLIP's start
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))
        self.project = nn.Linear(fc.in_features, classes.shape[1])
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        self.fixed = nn.ModuleList([copy.deepcopy(fc), nn.Linear(*classes.shape, bias=False)])
        self.fixed[1].weight.data.copy_(put_into_words(classes, config.ridge).T)
        self.fixed.requires_grad_(False)
        self.register_buffer("classes", classes, persistent=False)

    def embed(self, features: Tensor) -> Tensor:
        """Unit vectors (B, E)."""
        # features are what a ReLU left: never negative, with a long tail. Their root spreads them
        # evenly; length 1 takes out a picture's contrast; 45 is about √2048, so that a number's
        # root mean square is about one, what a layer expects.
        spread = F.normalize(features.clamp(min=0).sqrt(), dim=-1) * 45.0
        classify, words = self.fixed
        logits = classify(features) / self.log_temperature.exp().to(features)
        start = F.normalize(words(logits.softmax(-1)), dim=-1)
        return F.normalize(self.project(spread) + start, dim=-1)

    @property
    def scale(self) -> Tensor:
        """The factor on cosines, learned, at most 100 as in CLIP."""
        return self.log_scale.exp().clamp(max=100)

    def forward(self, features: Tensor) -> Tensor:
        """See the class; fp32 whatever the weights are."""
        return self.scale * self.embed(features).float() @ self.classes.T


def contrastive_loss(images: Tensor, texts: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
    """Each picture must find its sentence in the batch, and each sentence its picture.

    With few classes a batch holds several pictures of one class, whose sentences are right for all
    of them: the target is uniform over equal labels ("UniCL", arXiv 2204.03610, equation 3). With
    all labels (B,) different this is CLIP's loss. `images` and `texts` are unit vectors (B, E)."""
    logits = scale * images @ texts.T  # (B, B)
    same = (labels[:, None] == labels).float()
    target = same / same.sum(1, keepdim=True)  # symmetric up to its rows' sums, which are equal
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def train(head: Head, data: tuple[Tensor, ...], score, config: TwinConfig, seed: int) -> list:
    """Trains a head with AdamW and a cosine schedule; its best state stays in it. Returns the score
    of each epoch; ValueError if one is not finite.

    Args:
        data: features (n, 2048), labels (n,), a class each, and sentences (K, T, E), unit vectors:
            T a class, one of which is drawn each time.
        score: head -> float on validation data, higher is better."""
    (features, labels, sentences), scores = data, []
    generator = torch.Generator().manual_seed(seed)
    trained = [p for p in head.parameters() if p.requires_grad]
    groups = [dict(params=p, weight_decay=config.weight_decay * (p.ndim == 2)) for p in trained]
    optimizer = torch.optim.AdamW(groups, lr=config.lr)
    steps = config.max_epochs * math.ceil(len(labels) / config.batch_size)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(config.max_epochs):
        for some in torch.randperm(len(labels), generator=generator).split(config.batch_size):
            images, row = head.embed(features[some]), labels[some]
            drawn = torch.randint(sentences.shape[1], row.shape, generator=generator)
            loss = contrastive_loss(images, sentences[row, drawn], row, head.scale)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cosine.step()
        with torch.inference_mode():
            scores.append(float(score(head)))
        if not math.isfinite(scores[-1]):
            raise ValueError(f"expected a finite score, got {scores[-1]}")
        best = scores.index(max(scores))
        if best == epoch:
            best_state = copy.deepcopy(head.state_dict())
        elif epoch - best >= config.patience:
            break
    head.load_state_dict(best_state)
    return scores


def save(head: Head, config: TwinConfig, trunk: str, folder: Path = FOLDER) -> None:
    """Writes the head and the class vectors in half precision, with what made them; `trunk` is the
    name of the classifier whose features the head was trained on."""
    made = {"config": json.dumps(asdict(config)), "trunk": trunk, "program": PROGRAM}
    # the fixed part follows from the classifier and the class vectors
    trained = {k: v for k, v in head.state_dict().items() if not k.startswith("fixed.")}
    for name, tensors in ((HEAD, trained), (CLASSES, {"seven": head.classes})):
        with replacing(folder / name) as file:
            save_file({k: v.half().contiguous() for k, v in tensors.items()}, file, made)


def load(classifier: imagenet.Classifier, folder: Path = FOLDER) -> imagenet.Classifier:
    """The stored twin of this classifier; FileNotFoundError when there is none, ValueError when it
    was trained on another trunk: features of two networks do not mix."""
    if missing := [n for n in (HEAD, CLASSES) if not (folder / n).exists()]:
        raise FileNotFoundError(f"expected {', '.join(missing)} in {folder}: run `{PROGRAM}`")
    with safe_open(folder / HEAD, "pt") as file:
        made = file.metadata()
    if (trunk := made["trunk"]) != classifier.name:
        here = f"the network here is {classifier.name}: train its own by `{PROGRAM}`"
        raise ValueError(f"the stored head belongs to {trunk}, {here}")
    classes = F.normalize(load_file(folder / CLASSES)["seven"].float(), dim=-1)
    head = Head(classifier.model.fc, classes, TwinConfig(ridge=json.loads(made["config"])["ridge"]))
    fixed = {f"fixed.{k}": v for k, v in head.fixed.state_dict().items()}
    head.load_state_dict(load_file(folder / HEAD) | fixed)  # copied into fp32
    network = copy.deepcopy(classifier.model)
    network.fc = head
    return replace(classifier, name=NAME, model=network.eval().requires_grad_(False))
