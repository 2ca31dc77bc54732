# LLM-assisted: prompts P4, see report.md
"""A text-aligned twin of ImageNet's ResNet-50: the same frozen trunk, a small head that puts its
features beside sentences.

"LiT: Zero-Shot Transfer with Locked-image text Tuning" (arXiv 2111.07991) locks the image tower and
trains the text tower; here both towers are locked and a small head between them is trained, with
CLIP's symmetric contrastive loss (arXiv 2103.00020, figure 3). The head starts as the trunk's own
classifier put into words, so beside that classifier the twin shows what the objective and a few
thousand pictures with words change, all else being equal. It is not CLIP and never called so.
"""

import copy
import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from cvassign import assets
from cvassign.clip import imagenet, zero_shot
from cvassign.study import sentences
from cvassign.files import replacing
from cvassign.clip.precision import convert
from cvassign.study.twin_data import Features

NAME = "text-aligned twin of ResNet-50"
FOLDER = Path(__file__).resolve().parents[2] / "results" / "twin"
HEAD, CLASSES, KNOWN = "head.safetensors", "classes.safetensors", "sentences.safetensors"
# In free words, none of them a class name; stored, so that a notebook needs no sentence encoder.
QUERIES = (
    "a big cat with stripes", "a bird that cannot fly but swims well",
    "an animal with a very long neck or nose", "something to make music with",
    "a fruit that tastes sour", "a tool from the workshop", "it carries people through the air",
    "a round thing to play sports with", "an insect that makes honey",
    "something hot to drink in the morning",
)  # fmt: skip


@dataclass(frozen=True)
class TwinConfig:
    """How a head is trained."""

    head: str = "linear"  # or "mlp"
    hidden: int = 256  # width of the MLP
    dropout: float = 0.3
    start: bool = True  # from what the classifier says, put into words; else from nothing
    ridge: float = 1.0  # of `put_into_words`
    temperature: float = 4.0  # of the classifier's probabilities, before it is trained
    photos: bool = True  # one labelled photo a class
    renditions: bool = True  # labelled drawings, emoji, sculptures …
    icons: bool = True  # … and with them Iconify's icons and emoji
    captions: bool = False  # drawings with their authors' titles
    templates: str = "seven"  # key of zero_shot.TEMPLATES: a pair's sentence is drawn from these
    batch_size: int = 256
    lr: float = 1e-4  # for an MLP three times as much
    weight_decay: float = 0.05
    max_epochs: int = 60
    patience: int = 10  # epochs without a better validation score, after which training ends

    def __post_init__(self):
        if self.head not in ("mlp", "linear"):
            raise ValueError(f"head must be mlp or linear, got {self.head!r}")


class Head(nn.Module):
    """Features (B, 2048) to unit vectors (B, E) in the sentence encoder's space.

    The trunk's own classifier, put into words, is the start: its probabilities weigh vectors of the
    class names, as in "Zero-Shot Learning by Convex Combination of Semantic Embeddings" (arXiv
    1312.5650). A trained layer or MLP adds a correction, in the beginning none.

    Args:
        start: the classifier's last layer and a vector a class (K, E), by `put_into_words`; both
            stay fixed. None: the head is trained from nothing.
    """

    def __init__(self, config: TwinConfig, width: int = 2048, embed_dim: int = 384,
                 start: tuple[nn.Linear, Tensor] | None = None):  # fmt: skip
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # CLIP's start
        if config.head == "linear":
            self.project = nn.Sequential(nn.Linear(width, embed_dim))
        else:
            self.project = nn.Sequential(
                nn.Linear(width, config.hidden), nn.GELU(), nn.Dropout(config.dropout),
                nn.Linear(config.hidden, embed_dim),
            )  # fmt: skip
        self.fixed = None
        if start is not None:
            fc, words = start
            self.fixed = nn.Sequential(copy.deepcopy(fc), nn.Softmax(dim=-1),
                                       nn.Linear(*words.shape, bias=False))  # fmt: skip
            self.fixed[2].weight.data.copy_(words.T)
            self.fixed.requires_grad_(False)
            self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))
            nn.init.zeros_(self.project[-1].weight)
            nn.init.zeros_(self.project[-1].bias)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        # features are what a ReLU left: never negative, with a long tail. Their root spreads them
        # evenly; length 1 takes out a picture's contrast. 45 is about √2048: the numbers' root mean
        # square is then about one, what a layer expects. The clamp changes nothing here; a trunk
        # without a last ReLU would else give NaN.
        spread = F.normalize(features.clamp(min=0).sqrt(), dim=-1) * 45.0
        out = self.project(spread)
        if self.fixed is not None:
            classify, softmax, words = self.fixed
            logits = classify(features) / self.log_temperature.exp().to(features)
            out = out + F.normalize(words(softmax(logits)), dim=-1)
        return F.normalize(out, dim=-1)

    def trained(self) -> dict[str, Tensor]:
        """The state without the fixed part, which the classifier and the class names give again."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("fixed.")}

    @property
    def scale(self) -> Tensor:
        """The factor on cosines, learned, at most 100 as in CLIP."""
        return self.log_scale.exp().clamp(max=100)


def contrastive_loss(images: Tensor, texts: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
    """Each picture must find its sentence in the batch, and each sentence its picture.

    With few classes a batch holds several pictures of one class, whose sentences are right for all
    of them: the target is uniform over equal labels ("UniCL", arXiv 2204.03610, equation 3). With
    all labels different this is CLIP's loss.

    Args:
        images, texts: (B, E) unit vectors, pair by pair.
        labels: (B,) integers; equal ones are the same thing.
    """
    logits = scale * images @ texts.T  # (B, B)
    same = (labels[:, None] == labels).float()
    target = same / same.sum(1, keepdim=True)  # symmetric up to its rows' sums, which are equal
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


@dataclass
class Pairs:
    """Picture features with the sentences that fit them.

    `sentences[text[i]]` are picture i's sentences, (T, E), one of which is drawn each time; two
    pictures with one `text` show the same thing.
    """

    features: Tensor  # (n, 2048)
    text: Tensor  # (n,) index into `sentences`
    sentences: Tensor  # (M, T, E) unit vectors


def train(pairs: Pairs, config: TwinConfig, seed: int, score,
          start: tuple[nn.Linear, Tensor] | None = None) -> tuple[Head, dict]:  # fmt: skip
    """Trains a head with AdamW and a cosine schedule, and keeps its best state.

    Args:
        pairs: what to train on.
        score: head -> finite float on validation data, higher is better; asked after every epoch.
        start: see `Head`.

    Returns:
        The head with the best score, in eval mode, and the history: `loss`, `score` by epoch,
        `best_epoch`.

    Raises:
        ValueError: for a score that is not finite: no epoch could be called the best.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of the first weights and of dropout
        head = Head(config, pairs.features.shape[1], pairs.sentences.shape[2], start)
        trained = [p for p in head.parameters() if p.requires_grad]
        decay = [p for p in trained if p.ndim == 2]
        rest = [p for p in trained if p.ndim != 2]
        optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": config.weight_decay},
                                       {"params": rest, "weight_decay": 0.0}], lr=config.lr)  # fmt: skip
        n = len(pairs.text)
        steps = math.ceil(n / config.batch_size)
        history, best, best_state = {"loss": [], "score": []}, -math.inf, None
        for epoch in range(config.max_epochs):
            head.train()
            order, total = torch.randperm(n, generator=generator), 0.0
            for step, some in enumerate(order.split(config.batch_size)):
                done = (epoch + step / steps) / config.max_epochs
                for group in optimizer.param_groups:
                    group["lr"] = config.lr * 0.5 * (1 + math.cos(math.pi * done))
                row = pairs.text[some]
                drawn = torch.randint(pairs.sentences.shape[1], row.shape, generator=generator)
                loss = contrastive_loss(head(pairs.features[some]), pairs.sentences[row, drawn],
                                        row, head.scale)  # fmt: skip
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item() * len(some)
            head.eval()
            with torch.inference_mode():
                history["score"].append(float(score(head)))
            history["loss"].append(total / n)
            if not math.isfinite(history["score"][-1]):
                raise ValueError(f"expected a finite score, got {history['score'][-1]}")
            if history["score"][-1] > best:
                best, best_state = history["score"][-1], copy.deepcopy(head.state_dict())
                history["best_epoch"] = epoch
            elif epoch - history["best_epoch"] >= config.patience:
                break
    head.load_state_dict(best_state)
    return head.eval(), history


def put_into_words(classes: Tensor, ridge: float) -> Tensor:
    """A vector a class such that a sum weighed by probabilities says these probabilities again.

    Class names lie close together: in a plain mean of their vectors T (K, E), weighed by p, near
    names gain from each other. V = T (TᵀT + ridge I)⁻¹ (ridge regression) makes T Vᵀ p come nearest
    to p. A large ridge leaves the directions of T itself.

    Args:
        classes: T, unit vectors.
        ridge: in units of a class vector's squared length.

    Returns:
        V (K, E).
    """
    t = classes - classes.mean(0)  # what all share tells no class from another
    return torch.linalg.solve(t.T @ t + ridge * torch.eye(t.shape[1]), t.T).T.contiguous()


@dataclass(frozen=True)
class Twin:
    """`zero_shot.Encoder` by ResNet-50 with a trained head in the place of its last layer."""

    network: nn.Module  # torchvision's ResNet-50, `fc` a `Head`: images to unit vectors
    preprocess: object
    classes: dict[str, Tensor]  # templates -> (1000, E): the class names, encoded and stored
    features: Features | None = None  # of the same trunk, when pictures are asked for repeatedly
    known: dict[str, Tensor] = field(default_factory=dict)  # sentence -> (E,), stored
    name: str = NAME

    @property
    def logit_scale(self) -> float:
        """See `zero_shot.Encoder`."""
        return self.network.fc.scale.item()

    @torch.inference_mode()
    def encode_image(self, images: list, batch_size: int = 16) -> Tensor:
        """See `zero_shot.Encoder`."""
        if self.features is not None:
            return self.network.fc(self.features(images, batch_size))
        return torch.cat([
            self.network(imagenet.stack(images[i : i + batch_size], self.preprocess, self.network))
            .float().cpu() for i in range(0, len(images), batch_size)
        ])  # fmt: skip

    def encode_text(self, texts: list[str]) -> Tensor:
        """See `zero_shot.Encoder`.

        Raises:
            assets.AssetError: for a sentence that is not stored, when the asset "minilm-l6", which
                encodes it, cannot be had.
        """
        new = [t for t in dict.fromkeys(texts) if t not in self.known]
        vectors = self.known | (dict(zip(new, sentences.minilm()(new))) if new else {})
        return torch.stack([vectors[t] for t in texts])

    def zero_shot(self, templates: str = "seven") -> zero_shot.ZeroShot:
        """The 1000 classes, from the stored embeddings: no sentence encoder is needed."""
        if templates not in self.classes:
            raise ValueError(f"templates must be one of {', '.join(self.classes)}, "
                             f"got {templates!r}")  # fmt: skip
        return zero_shot.ZeroShot(self, templates, weights=self.classes[templates])

    def to(self, precision: str) -> "Twin":
        """The whole twin, trunk and head, in one of `precision.PRECISIONS`, as a copy."""
        return replace(self, network=convert(self.network, precision), features=None,
                       name=f"{self.name}, {precision}")  # fmt: skip


def build(classifier: imagenet.Classifier, head: Head, classes: dict[str, Tensor],
          features: Features | None = None, known: dict[str, Tensor] | None = None) -> Twin:  # fmt: skip
    """The twin of a classifier: a copy of its network, the last layer replaced."""
    network = copy.deepcopy(classifier.model).eval().requires_grad_(False)
    network.fc = head.requires_grad_(False).eval()
    return Twin(network, classifier.preprocess, classes, features, known or {})


def save(head: Head, config: TwinConfig, seed: int, classes: dict[str, Tensor], trunk: str,
         known: dict[str, Tensor], folder: Path = FOLDER) -> None:  # fmt: skip
    """Writes the head, the class vectors and some sentences' in half precision, with what made them.

    Args:
        trunk: the name of the classifier whose features the head was trained on.
        known: sentence -> (E,), for queries without the sentence encoder.
    """
    made = {"config": json.dumps(asdict(config)), "seed": str(seed), "trunk": trunk,
            "program": "python -m cvassign.study.twin_study"}  # fmt: skip
    for name, tensors in ((HEAD, head.trained()), (CLASSES, classes), (KNOWN, known)):
        with replacing(folder / name) as file:
            save_file({k: v.half().contiguous() for k, v in tensors.items()}, file, made)


def load(classifier: imagenet.Classifier, folder: Path = FOLDER,
         features: Features | None = None) -> Twin:  # fmt: skip
    """The stored twin of this classifier.

    Args:
        features: of the same classifier, where its pictures' features are kept.

    Raises:
        FileNotFoundError: when it was not stored.
        ValueError: when it was trained on another trunk: features of two networks do not mix; or
            when the head's tensors are not those of its configuration.
    """
    if missing := [n for n in (HEAD, CLASSES, KNOWN) if not (folder / n).exists()]:
        raise FileNotFoundError(f"expected {', '.join(missing)} in {folder.name}/: run "
                                "`python -m cvassign.study.twin_study`")  # fmt: skip
    made = about(folder)
    if made["trunk"] != classifier.name:
        raise ValueError(f"the stored head belongs to {made['trunk']}, the network here is "
                         f"{classifier.name}: train its own by `python -m cvassign.study.twin_study`")  # fmt: skip
    config = TwinConfig(**json.loads(made["config"]))
    classes, known = ({k: F.normalize(v.float(), dim=-1) for k, v in load_file(folder / n).items()}
                      for n in (CLASSES, KNOWN))  # fmt: skip
    words = put_into_words(classes[config.templates], config.ridge)
    head = Head(config, start=(classifier.model.fc, words) if config.start else None)
    state = {k: v.float() for k, v in load_file(folder / HEAD).items()}
    missing, unexpected = head.load_state_dict(state, strict=False)
    missing = [k for k in missing if not k.startswith("fixed.")]  # `trained` leaves these out
    if missing or unexpected:
        raise ValueError(f"{HEAD}: expected the tensors of a {config.head} head; "
                         f"missing: {missing}, unexpected: {unexpected}")  # fmt: skip
    return build(classifier, head, classes, features, known)


def about(folder: Path = FOLDER) -> dict[str, str]:
    """What the stored head says of itself: `config` (JSON), `seed`, `trunk`, `program`."""
    with safe_open(folder / HEAD, "pt") as file:
        return file.metadata()


def own_trunk(classifier: imagenet.Classifier, folder: Path = FOLDER) -> imagenet.Classifier:
    """`classifier` if the stored head was trained on its features, else the one that it was.

    Raises:
        FileNotFoundError: when no head is stored.
        assets.AssetError: when that network's weights cannot be had.
        ValueError: when the head was trained on neither this network nor Keras's.
    """
    if not (folder / HEAD).exists():
        raise FileNotFoundError(f"expected {HEAD} in {folder.name}/: run "
                                "`python -m cvassign.study.twin_study`")  # fmt: skip
    trunk = about(folder)["trunk"]
    if trunk == classifier.name:
        return classifier
    keras = imagenet.from_keras(assets.fetch("resnet50-keras"))
    if trunk != keras.name:
        raise ValueError(f"the stored head belongs to {trunk}: expected that network, "
                         f"got {classifier.name} and {keras.name}")  # fmt: skip
    return keras
