# LLM-assisted: prompts P1, P2, P5, P7, P10, P15, P16, see report.md
"""One training loop for every model of the project: DeiT's recipe (arXiv 2012.12877), made short.

The state is written after every epoch, and every random number of an epoch comes from (seed,
epoch): a run that is killed and resumed on as many threads ends with the weights of one that was
not (on a GPU as far as its kernels add in a fixed order)."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvassign.augment import build_augmentation
from cvassign.capture import captured, compile_layers
from cvassign.data import Dataset, Split, fingerprint, normalise
from cvassign.device import autocast, keep_freed_memory, should_compile
from cvassign.files import load_checkpoint, replacing
from cvassign.optim import build_optimizers, lr_factor, set_rate
from cvassign.progress import bar
from cvassign.vit import VisionTransformer, ViTConfig, check_whole_numbers

AUGMENT_CHUNK = 5000  # images augmented at once: few kernel launches, little memory
# What is recorded of every epoch; "train_loss_tenths" are ten means along it, for short runs.
HISTORY = "train_loss train_loss_tenths val_loss val_accuracy learning_rate seconds".split()


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained. The first step has one warm-up step's rate, not zero; the last, at
    the end of the cosine, has zero."""

    epochs: int = 50  # passes over the training split
    batch_size: int = 256
    optimizer: str = "adamw"  # or "muon": Muon for the layers' matrices, AdamW for the rest
    learning_rate: float = 1e-3  # its peak
    lambda_share: float = 1.0  # of the rate, for the λ vectors of differential attention
    weight_decay: float = 0.05  # decoupled, on matrices only
    warmup_epochs: float = 5.0  # linear; at most `epochs`
    label_smoothing: float = 0.1
    clip_norm: float = 1.0  # the gradient's largest norm
    augment: str = "crop+flip"  # see augment.build_augmentation
    unmixed_epochs: int = 0  # the last epochs, without CutMix

    def __post_init__(self) -> None:
        check_whole_numbers(self)
        if self.optimizer not in ("adamw", "muon"):
            raise ValueError(f"optimizer must be adamw or muon, got {self.optimizer!r}")
        for name in ("learning_rate", "clip_norm", "lambda_share"):
            if not 0 < getattr(self, name) < math.inf:  # false for NaN too
                raise ValueError(f"{name} must be above 0 and finite, got {getattr(self, name)}")
        limits = dict(warmup_epochs=self.epochs, unmixed_epochs=self.epochs)
        for name, last in (limits | dict(weight_decay=1e9, label_smoothing=0.99)).items():
            if not 0 <= getattr(self, name) <= last:
                raise ValueError(f"{name} must be in [0, {last:g}], got {getattr(self, name)}")
        build_augmentation(self.augment)  # raises ValueError on an unknown name


def non_default(config) -> dict:
    """The fields of a dataclass that differ from their defaults: what a checkpoint is compared by,
    so that a field that comes or goes breaks no file."""
    return {f.name: v for f in fields(config) if (v := getattr(config, f.name)) != f.default}


@torch.no_grad()
def predict(model: nn.Module, images: Tensor, batch_size: int = 1000) -> Tensor:
    """Logits (n, K), fp32, of uint8 images (n, 3, S, S)."""
    model.eval()
    with autocast(images.device):
        return torch.cat([model(normalise(b)).float() for b in images.split(batch_size)])


def evaluate(model: nn.Module, split: Split) -> tuple[float, float]:
    """Cross-entropy (nats, no label smoothing) and accuracy (percent) on a split."""
    logits = predict(model, split.images)
    right = logits.argmax(1) == split.labels
    return F.cross_entropy(logits, split.labels).item(), 100 * right.float().mean().item()


class TimeUp(RuntimeError):
    """The deadline came before the last epoch."""


class Diverged(RuntimeError):
    """The loss is NaN or infinite: there is nothing to store."""


class Trainer:
    """Trains one model on the device of its data; `fit` runs the remaining epochs.

    `seed` is of the initial weights and of every random choice in training. `checkpoint` is the
    Path of the state after the last whole epoch, None keeps no state; ValueError if it belongs to
    another configuration, seed or data."""

    def __init__(
        self, model: ViTConfig, config: TrainConfig, seed: int, data: Dataset, checkpoint=None
    ):
        if (dtype := torch.get_default_dtype()) != torch.float32:  # would be stored as the same run
            raise ValueError(f"expected torch's default type to be float32, got {dtype}")
        self.config, self.seed, self.data, self.checkpoint = config, seed, data, checkpoint
        self.device = data.train.images.device
        if self.device.type == "cpu":
            keep_freed_memory()
        self.steps = max(1, len(data.train) // config.batch_size)  # a last, short batch is left out
        self.augmentation = build_augmentation(config.augment)
        torch.manual_seed(seed)
        self.model = VisionTransformer(model).to(self.device)
        if should_compile(self.device, self.steps * config.epochs):
            compile_layers(self.model, normalise(data.train.images[: config.batch_size]))
        recipe = config.optimizer, config.weight_decay, config.lambda_share
        self.optimizers = build_optimizers(self.model, *recipe)
        self.history: dict[str, list] = {key: [] for key in HISTORY}
        if checkpoint is not None and checkpoint.exists():
            self._load()
        # On a GPU `train_epoch` makes a graph of it at the first batch.
        self.step = None if self.device.type == "cuda" else self.plain_step

    @cached_property
    def identity(self) -> str:
        """What is trained, on what: a checkpoint of another one is refused."""
        configs = non_default(self.model.config), non_default(self.config)
        return repr((*configs, self.seed, self.data.name, fingerprint(self.data)))

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return len(self.history["train_loss"])

    def fit(self, progress: bool = True, deadline: float = math.inf) -> VisionTransformer:
        """Trains to the last epoch and returns the model as it then is, never that of the best;
        TimeUp if the next epoch would end after `deadline`, in `time.time()`'s seconds, Diverged
        if the loss is not finite."""
        steps, done = self.config.epochs * self.steps, self.epoch * self.steps
        with bar("training", total=steps, initial=done, unit="step", show=progress) as shown:
            while self.epoch < self.config.epochs:
                if time.time() + max(self.history["seconds"][-3:], default=0) > deadline:
                    raise TimeUp(f"{self.epoch} of {self.config.epochs} epochs are done")
                start = time.perf_counter()
                losses = self.train_epoch(shown.update)
                if not losses.isfinite().all():
                    why = f"the loss is not finite in epoch {self.epoch + 1}"
                    raise Diverged(f"training diverged, {why}: try a lower learning rate")
                self._record(losses, time.perf_counter() - start)
                loss, accuracy = (self.history[k][-1] for k in ("train_loss", "val_accuracy"))
                shown.set_postfix_str(f"epoch {self.epoch}, loss {loss:.3f}, val {accuracy:.1f} %")
                if self.checkpoint is not None:
                    self._save()
        return self.model

    @property
    def images_per_second(self) -> float:
        """In training, not validation; the first epoch, which warms up, counts only if alone."""
        seconds = self.history["seconds"][1:] or self.history["seconds"]
        return self.steps * self.config.batch_size / (sum(seconds) / len(seconds))

    def train_epoch(self, tell: Callable[[], object] = lambda: None) -> Tensor:
        """One pass over the training images: the loss of each step; `tell` is called after each."""
        c, train = self.config, self.data.train
        # Everything random in this epoch follows from the seed and the epoch's number; the factor
        # keeps all pairs apart. The global generator draws the layers that are dropped, `generator`
        # the images' order and augmentation, on a CPU from the same sequence, which does no harm.
        seed = 1_000_003 * self.seed + self.epoch
        torch.manual_seed(seed)
        generator = torch.Generator(self.device).manual_seed(seed)
        order = torch.randperm(len(train), generator=generator, device=self.device)
        images = torch.empty_like(train.images)  # this epoch's pixels, augmented, in new order
        for chunk, out in zip(order.split(AUGMENT_CHUNK), images.split(AUGMENT_CHUNK)):
            out.copy_(self.augmentation.pixels(train.images[chunk], generator))
        labels = F.one_hot(train.labels[order], self.model.config.num_classes).float()

        self.model.train()
        mixed = self.epoch < c.epochs - c.unmixed_epochs
        # The losses stay on the device: reading one would make the GPU wait for it.
        losses = torch.zeros(self.steps, device=self.device)
        for i in range(self.steps):
            batch = slice(i * c.batch_size, (i + 1) * c.batch_size)
            x, y = normalise(images[batch]), labels[batch]
            if mixed:
                x, y = self.augmentation.mix(x, y, generator)
            done = (self.epoch * self.steps + i + 1) / (c.epochs * self.steps)
            set_rate(self.optimizers, c.learning_rate * lr_factor(done, c.warmup_epochs / c.epochs))
            if self.step is None:
                self.step = captured(self.plain_step, self.model, self.optimizers, x, y)
            losses[i] = self.step(x, y)
            tell()
        return losses.cpu()

    def plain_step(self, x: Tensor, y: Tensor) -> Tensor:
        """One optimizer step on images x (B, 3, S, S) and soft targets y (B, K); its loss."""
        with autocast(self.device):
            logits = self.model(x)
        loss = F.cross_entropy(logits.float(), y, label_smoothing=self.config.label_smoothing)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def _record(self, losses: Tensor, seconds: float) -> None:
        # Not compiled: its batches have another shape, whose compiling would take an epoch's time.
        with torch.compiler.set_stance("force_eager"):
            val_loss, val_accuracy = evaluate(self.model, self.data.val)
        parts = [part.mean().item() for part in losses.tensor_split(min(10, len(losses)))]
        rate = self.optimizers[0].param_groups[0]["lr"].item()
        values = (losses.mean().item(), parts, val_loss, val_accuracy, rate, seconds)
        for key, value in zip(HISTORY, values):
            self.history[key].append(value)
        if lambdas := self.model.lambdas():
            self.history.setdefault("lambdas", []).append(lambdas)

    def _save(self) -> None:
        state = dict(identity=self.identity, history=self.history, model=self.model.state_dict())
        state["optimizers"] = [o.state_dict() for o in self.optimizers]
        with replacing(self.checkpoint) as temporary:
            torch.save(state, temporary)

    def _load(self) -> None:
        try:
            state = load_checkpoint(self.checkpoint, self.device)
            keys = {"identity", "model", "optimizers", "history"}
            if lacking := keys - set(state if isinstance(state, dict) else ()):
                raise ValueError(f"{self.checkpoint} lacks {', '.join(sorted(lacking))}")
            if (held := state["identity"]) != self.identity:
                other = f"it holds {held}\n  expected {self.identity}"
                raise ValueError(f"{self.checkpoint} belongs to another run:\n  {other}")
        except ValueError as error:  # CheckpointError is one
            raise ValueError(f"{error}\ndelete it to start anew") from error
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"]):
            groups = optimizer.state_dict()["param_groups"]  # `saved` may come from another device
            optimizer.load_state_dict(saved | {"param_groups": groups})
        self.history = state["history"]
