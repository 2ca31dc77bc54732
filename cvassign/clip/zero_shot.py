# LLM-assisted: prompts P3, P4, P9, P10, P12, P15, P16, see report.md
"""CLIP as a classifier over words ("Learning Transferable Visual Models From Natural Language
Supervision", arXiv 2103.00020): an image and a text encoder into one space, and zero-shot
classification by the cosine between a picture and the sentence "a photo of a tench."
"""

import copy
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

import huggingface_hub
import open_clip
import torch
from open_clip.model import convert_weights_to_lp
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from cvassign import assets
from cvassign.clip import imagenet, kept
from cvassign.files import load_checkpoint
from cvassign.progress import bar

TEMPLATES = {
    "single": (lambda name: f"a photo of a {name}.",),
    "seven": open_clip.SIMPLE_IMAGENET_TEMPLATES,  # found by OpenAI as good as all eighty
    "eighty": open_clip.OPENAI_IMAGENET_TEMPLATES,
}
# fp32 and tf32 have the same tensors: TF32 rounds the *inputs* of a matrix product to 10 mantissa
# bits inside the tensor cores. fp16 and bf16: convolutions and linear layers, not BatchNorm.
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
PRECISIONS = ("fp32", "tf32", *DTYPES)


def convert(encoder: nn.Module, precision: str) -> nn.Module:
    """A copy of the encoder in one of `PRECISIONS`, in eval mode; the original is untouched."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    encoder = copy.deepcopy(encoder).eval().requires_grad_(False)
    if precision in DTYPES:
        convert_weights_to_lp(encoder, DTYPES[precision])
    return encoder


@dataclass(frozen=True)
class OpenClip:
    """Images and texts into one space of E dimensions, by a model of open_clip; vectors have length
    1, in fp32, on the CPU."""

    name: str  # which weights these are, for every table and figure
    model: nn.Module  # open_clip.CLIP, in eval mode
    preprocess: object  # PIL image -> (3, H, W)
    tokenizer: object

    @property
    def logit_scale(self) -> float:
        """The factor on cosines before the softmax; OpenAI clipped it at 100 in training."""
        return self.model.logit_scale.exp().item()

    @torch.inference_mode()
    def encode_image(self, images: list) -> Tensor:
        """Pictures or their files, a batch, to (n, E)."""
        batch = imagenet.stack(images, self.preprocess, self.model.visual)
        return F.normalize(self.model.encode_image(batch).float().cpu(), dim=-1)

    @torch.inference_mode()
    def encode_text(self, texts: list[str], batch_size: int = 64) -> Tensor:
        """Sentences to (n, E); warns of those that are longer than CLIP's 77 tokens."""
        n = self.tokenizer.context_length
        if long := [t for t in texts if len(self.tokenizer.encode(t)) + 2 > n]:
            some = "; ".join(f"{t[:60]} …" for t in long[:3])  # two of them could get equal vectors
            what = f"{len(long)} texts are longer than {n} tokens and are cut: {some}"
            warnings.warn(what, stacklevel=3)
        tokens = self.tokenizer(texts).to(self.model.logit_scale.device)  # (n, 77)
        ends = tokens.argmax(-1)  # the end's token has the highest number
        order = ends.argsort()  # sentences of about one length share a batch
        # Attention is causal and a sentence's vector is read at its end, so what stands behind has
        # no part in it and is cut: of 77 tokens of a sentence that is 68 on average, of the seven.
        found = []
        for rows in order.split(batch_size):
            n = int(ends[rows].max()) + 1
            cut = {"positional_embedding": self.model.positional_embedding[:n]}
            cut["attn_mask"] = self.model.attn_mask[:n, :n]
            found.append(functional_call(self.model, cut, kwargs={"text": tokens[rows, :n]})[1])
        return F.normalize(torch.cat(found)[order.argsort()].float(), dim=-1).cpu()

    def to(self, precision: str) -> "OpenClip":
        """The same encoder in another of `PRECISIONS`, as a copy."""
        return replace(self, name=f"{self.name}, {precision}", model=convert(self.model, precision))


def rn50() -> nn.Module:
    """CLIP RN50 with random weights, QuickGELU in the text tower as OpenAI trained it: with plain
    GELU the weights load without a word, and the embeddings are wrong."""
    return open_clip.CLIP(**open_clip.get_model_config("RN50"), quick_gelu=True).eval()


def load(path: Path | str | None = None, precision: str = "fp32", device: str = "cpu") -> OpenClip:
    """OpenAI's CLIP RN50, from OpenAI's own RN50.pt (a TorchScript archive) or a state dict of
    open_clip; without a path from the file that CVASSIGN_CLIP names, else the asset "clip-rn50",
    else by open_clip's own download, which knows a mirror.

    AssetError when the weights cannot be had; ValueError for a missing or a wrong file."""
    path = path or assets.named("CVASSIGN_CLIP")
    model, file = rn50(), Path(path or _published())
    try:
        model.load_state_dict(read_state(file))
    except Exception as error:
        expected = f"{file}: expected OpenAI's RN50.pt or a state dict of open_clip's RN50"
        raise ValueError(f"{expected}, got {type(error).__name__}: {str(error)[:200]}") from error
    openais = path is None or assets.sha256_of(file) == assets.ASSETS["clip-rn50"].sources[0].sha256
    name = "OpenAI CLIP RN50" if openais else f"CLIP RN50 ({file.name})"
    model = convert(model.to(device), precision)
    model.visual.to(memory_format=torch.channels_last)  # a sixth faster on a CPU
    return with_transforms(name, model)


def with_transforms(name: str, model: nn.Module) -> OpenClip:
    """The model with the preprocessing and the tokenizer that OpenAI trained it with."""
    preprocess = open_clip.image_transform(224, is_train=False)
    return OpenClip(name, model, preprocess, open_clip.get_tokenizer("RN50"))


def _published() -> Path:
    """OpenAI's file: from the asset's sources, else by open_clip."""
    try:
        return assets.fetch("clip-rn50")
    except assets.AssetError as first:
        try:  # one question first: open_clip would ask for a minute, in vain
            huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=10)
            huggingface_hub.utils.disable_progress_bars()  # they would stay in a notebook
            with bar("fetching RN50 through open_clip …", bar_format="{desc}"):
                cfg = open_clip.get_pretrained_cfg("RN50", "openai")
                return Path(open_clip.download_pretrained(cfg))
        except Exception as second:  # the hub's many errors: no network, no file, no permission
            raise assets.AssetError(f"{first}\n  - open_clip: {type(second).__name__}") from second


def read_state(file: Path) -> dict[str, Tensor]:
    """The state dict in a TorchScript archive, a plain or training checkpoint, or safetensors."""
    if file.suffix == ".safetensors":
        return load_file(file)
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # an old form
            state = dict(torch.jit.load(file, map_location="cpu").state_dict())
    except RuntimeError:  # no TorchScript archive
        state = load_checkpoint(file)
        state = state.get("state_dict", state)
    # OpenAI's archive keeps three settings as tensors; a training run may have been distributed
    settings = ("input_resolution", "context_length", "vocab_size")
    return {k.removeprefix("module."): v for k, v in state.items() if k not in settings}


@dataclass
class ZeroShot:
    """The 1000 ImageNet classes (or any other names) as a classifier made of sentences.

    A class's weight vector is the mean of its sentences' embeddings, scaled back to length 1; the
    logit of a picture is logit_scale x cosine, its probability the softmax over the names."""

    encoder: OpenClip  # or what has its name, logit_scale, encode_image and encode_text
    templates: str = "seven"  # a key of TEMPLATES
    names: list[str] = field(default_factory=imagenet.class_names)
    cache: Path | None = None  # folder where vectors of names and pictures are kept; None: nowhere
    weights: Tensor | None = None  # (K, E), a vector a class; None: the sentences are encoded
    progress: bool = False  # show a bar: encoding takes minutes on a few cores

    def __post_init__(self):
        if self.templates not in TEMPLATES:
            known = ", ".join(TEMPLATES)
            raise ValueError(f"templates must be one of {known}, got {self.templates!r}")
        n = len(TEMPLATES[self.templates])
        self.name = f"{self.encoder.name}, {n} templates"
        how = self.encoder.encode_image, kept.pixels, kept.PROBE, self.cache
        self._pictures = kept.Kept(*how, f"pictures {self.encoder.name}", self.progress)
        if self.weights is None:
            how = self._encode_names, lambda name: repr(self._sentences(name)).encode(), "tench"
            words = kept.Kept(*how, self.cache, f"classes {self.name}", self.progress)
            self.weights = words(self.names, "class names", 512 // n)

    def _sentences(self, name: str) -> list[str]:
        return [template(name) for template in TEMPLATES[self.templates]]

    def _encode_names(self, names: list[str]) -> Tensor:
        each = self.encoder.encode_text([s for name in names for s in self._sentences(name)])
        return F.normalize(each.unflatten(0, (len(names), -1)).mean(dim=1), dim=-1)

    def logits(self, images: list[Image.Image | Path | str]) -> Tensor:
        """Logits (n, K): logit_scale x cosine."""
        return self.encoder.logit_scale * self._pictures(images, "pictures", 16) @ self.weights.T

    def topk(self, images: list[Image.Image | Path | str], k: int = 5) -> list[list[tuple]]:
        """The k best names of each picture: [(name, probability), …]."""
        return imagenet.named(*self.logits(images).softmax(dim=-1).topk(k), self.names)


PARTS = ("stem", "layer1", "layer2", "layer3", "layer4", "head")


def _by_part(model: nn.Module, amount) -> dict[str, int]:
    """amount(name, module) of an image encoder's children, summed to `PARTS` and "all"."""
    count = dict.fromkeys(PARTS, 0)
    for name, child in model.named_children():
        other = "head" if name in ("attnpool", "fc") else "stem"
        count[name if name in PARTS else other] += amount(name, child)
    return count | {"all": sum(count.values())}


def parts(model: nn.Module) -> dict[str, int]:
    """Parameters by part of an image encoder, either of the two: `PARTS` and "all"."""
    return _by_part(model, lambda _, child: sum(p.numel() for p in child.parameters()))


@torch.inference_mode()
def flops(model: nn.Module) -> dict[str, int]:
    """Floating-point operations of one picture's forward pass, by part; a multiply-add is two."""
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 224, 224))
    found, kind = counter.get_flop_counts(), type(model).__name__
    return _by_part(model, lambda name, _: sum(found.get(f"{kind}.{name}", {}).values()))
