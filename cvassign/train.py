# LLM-assisted: prompts P1, P2, P5, see report.md
"""One training loop for every model of the project.

The recipe is that of DeiT (arXiv 2012.12877), made short: AdamW or Muon, warm-up and cosine,
label smoothing, stochastic depth, augmentation, clipped gradients, bf16 autocast.

Nothing is lost: the state is written after every epoch, and every random number of an epoch comes
from (seed, epoch), so that a run that is killed and resumed ends with the weights of one that was
not (on a GPU as far as its kernels add in a fixed order).
"""

import shutil
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from cvassign.augment import build_augmentation
from cvassign.data import Dataset, Split, normalise
from cvassign.files import replacing
from cvassign.optim import build_optimizers, lr_factor
from cvassign.vit import VisionTransformer, ViTConfig

COMPILE_STEPS = {"cuda": 500, "cpu": 3000}  # shorter trainings are not worth compiling
AUGMENT_CHUNK = 5000  # images augmented at once: few kernel launches, little memory
# What is recorded of every epoch; "train_loss_tenths" are ten means along it, for short runs.
HISTORY = (
    "train_loss", "train_loss_tenths", "val_loss", "val_accuracy", "learning_rate", "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained.

    A step's rate counts the steps done with it: the first has one warm-up step's rate, not zero, and
    the last, at the end of the cosine, zero.
    """

    epochs: int = 50  # passes over the training split
    batch_size: int = 256
    optimizer: str = "adamw"  # or "muon": Muon for the layers' matrices, AdamW for the rest
    learning_rate: float = 1e-3  # its peak
    weight_decay: float = 0.05  # decoupled, on matrices only
    warmup_epochs: float = 5.0  # linear; at most `epochs`
    label_smoothing: float = 0.1
    clip_norm: float = 1.0  # the gradient's largest norm
    augment: str = "crop+flip"  # see augment.build_augmentation
    ema_decay: float | None = None  # average the weights and evaluate the average
    keep: float = 1.0  # share of the patches kept while training (PatchDropout) ...
    keep_epochs: int = 0  # ... in the first epochs; then all of them

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(
                f"epochs and batch_size must be positive, got {self.epochs}, {self.batch_size}"
            )
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise ValueError(
                f"warmup_epochs must be in [0, epochs = {self.epochs}], got {self.warmup_epochs}"
            )
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep must be in (0, 1], got {self.keep}")
        build_augmentation(self.augment)  # raises ValueError on an unknown name


def pick_device(name: str | None = None) -> torch.device:
    """The device called `name`, else a GPU when there is one, else the CPU."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def bf16_pays(device: torch.device) -> bool:
    """Whether bf16 is faster than fp32: on GPUs, and on CPUs with AMX or AVX512."""
    return device.type == "cuda" or (
        torch.backends.mkldnn.is_available()  # not on a Mac
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def autocast(device: torch.device) -> torch.autocast:
    """bf16 where that pays, else fp32 as it is."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16_pays(device))


def compiling_pays(device: torch.device, steps: int) -> bool:
    """Whether torch.compile earns back its minute: on a run of some length, where it can work.

    Its kernels are built with the machine's C compiler (C++ on a CPU) and Python's headers.
    """
    compilers = ("cc", "gcc", "clang") if device.type == "cuda" else ("g++",)
    headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    return headers and any(map(shutil.which, compilers)) and steps >= COMPILE_STEPS[device.type]


@torch.no_grad()
def predict(model: nn.Module, images: Tensor, batch_size: int = 1000) -> Tensor:
    """Logits (n, K), fp32, of uint8 images (n, 3, S, S)."""
    model.eval()
    with autocast(images.device):
        return torch.cat([model(normalise(b)).float() for b in images.split(batch_size)])


def evaluate(model: nn.Module, split: Split) -> tuple[float, float]:
    """Cross-entropy (nats, no label smoothing) and accuracy (percent) on a split."""
    logits = predict(model, split.images)
    loss = F.cross_entropy(logits, split.labels)
    accuracy = (logits.argmax(1) == split.labels).float().mean()
    return loss.item(), 100 * accuracy.item()


def save_atomically(obj, path: Path) -> None:
    """torch.save that leaves the old file or the new one, never half of one."""
    with replacing(path) as temporary:
        torch.save(obj, temporary)


class Trainer:
    """Trains one model; `fit` runs the remaining epochs.

    Args:
        model_config: the model's shape.
        config: the recipe.
        seed: of the initial weights and of every random choice in training.
        data: the splits, on the device to train on.
        checkpoint: file of the state after the last whole epoch; None keeps no state.

    Raises:
        ValueError: if the checkpoint belongs to another configuration or seed.
    """

    def __init__(
        self,
        model_config: ViTConfig,
        config: TrainConfig,
        seed: int,
        data: Dataset,
        checkpoint: Path | None = None,
    ):
        self.config, self.seed, self.data, self.checkpoint = config, seed, data, checkpoint
        self.device = data.train.images.device
        self.identity = repr((model_config, config, seed, data.name))
        torch.manual_seed(seed)
        self.model = VisionTransformer(model_config).to(self.device)
        self.steps = max(1, len(data.train) // config.batch_size)  # a last, short batch is left out
        if compiling_pays(self.device, self.steps * config.epochs):
            # Layer by layer: the layers share one graph, so compiling takes seconds, not minutes.
            torch.compiler.reset()  # it keeps eight graphs of one function, for all models together
            for layer in self.model.layers:
                layer.compile(dynamic=False)
        self.optimizers = build_optimizers(
            self.model, config.optimizer, config.learning_rate, config.weight_decay
        )
        self.ema = None
        if config.ema_decay is not None:
            average = get_ema_multi_avg_fn(config.ema_decay)
            self.ema = AveragedModel(self.model, multi_avg_fn=average, use_buffers=False)
        self.augmentation = build_augmentation(config.augment)
        self.history: dict[str, list] = {key: [] for key in HISTORY}
        if checkpoint is not None and checkpoint.exists():
            self._load()

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return len(self.history["train_loss"])

    def fit(self, progress: bool = True) -> nn.Module:
        """Trains to the last epoch and returns the model to use (the average, with EMA)."""
        steps = self.config.epochs * self.steps
        with tqdm(
            total=steps, initial=self.epoch * self.steps, unit="step", disable=not progress
        ) as bar:
            while self.epoch < self.config.epochs:
                start = time.perf_counter()
                losses, rate = self._train_epoch(bar)
                self._record(losses, rate, time.perf_counter() - start)
                last = {k: v[-1] for k, v in self.history.items()}
                bar.set_postfix(
                    epoch=self.epoch,
                    loss=f"{last['train_loss']:.3f}",
                    val=f"{last['val_accuracy']:.1f}%",
                    images_s=f"{self.images_per_second:.0f}",
                )
                if self.checkpoint is not None:
                    self._save()
        return self.final_model

    @property
    def final_model(self) -> nn.Module:
        """The model after the last epoch done: its averaged weights with `ema_decay`, else its own.
        Never those of the best epoch."""
        return self.model if self.ema is None else self.ema.module

    @property
    def images_per_second(self) -> float:
        """Training images through the model a second, over all epochs but the first, which warms
        up (over that one if it is the only one). The validation of each epoch is not counted."""
        seconds = self.history["seconds"][1:] or self.history["seconds"]
        return self.steps * self.config.batch_size / (sum(seconds) / len(seconds))

    def _train_epoch(self, bar: tqdm) -> tuple[Tensor, float]:
        """One pass over the training images: the loss of each step and the last learning rate."""
        c, train = self.config, self.data.train
        # Everything random in this epoch follows from the seed and the epoch's number; the factor
        # keeps all pairs of them apart, as long as there are fewer epochs. The global generator
        # draws the patches and the layers that are dropped, `generator` the order of the images and
        # their augmentation. On a CPU both give one and the same sequence of numbers. That does no
        # harm: what is dropped from an image may depend on its place and its augmentation, as each
        # of these choices is still uniform, and new in every epoch.
        torch.manual_seed(1_000_003 * self.seed + self.epoch)
        generator = torch.Generator(self.device).manual_seed(1_000_003 * self.seed + self.epoch)
        order = torch.randperm(len(train), generator=generator, device=self.device)
        images = torch.empty_like(train.images)  # this epoch's pixels, augmented, in new order
        for chunk, out in zip(order.split(AUGMENT_CHUNK), images.split(AUGMENT_CHUNK)):
            out.copy_(self.augmentation.pixels(train.images[chunk], generator))
        labels = F.one_hot(train.labels[order], self.model.config.num_classes).float()

        self.model.train()
        keep = c.keep if self.epoch < c.keep_epochs else 1.0
        # The losses stay on the device: reading one would make the GPU wait for it.
        losses, rate = torch.zeros(self.steps, device=self.device), 0.0
        for i in range(self.steps):
            batch = slice(i * c.batch_size, (i + 1) * c.batch_size)
            x = self.augmentation.erase(normalise(images[batch]), generator)
            x, y = self.augmentation.mix(x, labels[batch], generator)
            done = (self.epoch * self.steps + i + 1) / (c.epochs * self.steps)
            rate = c.learning_rate * lr_factor(done, c.warmup_epochs / c.epochs)
            losses[i] = self._step(x, y, rate, keep)
            bar.update()
        return losses.cpu(), rate

    def _step(self, x: Tensor, y: Tensor, rate: float, keep: float) -> Tensor:
        """One optimizer step on images x (B, 3, S, S) and soft targets y (B, K)."""
        with autocast(self.device):
            logits = self.model(x, keep=keep)
        loss = F.cross_entropy(logits.float(), y, label_smoothing=self.config.label_smoothing)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        return loss.detach()

    def _record(self, losses: Tensor, rate: float, seconds: float) -> None:
        val_loss, val_accuracy = evaluate(self.final_model, self.data.val)
        parts = [part.mean().item() for part in losses.tensor_split(min(10, len(losses)))]
        values = (losses.mean().item(), parts, val_loss, val_accuracy, rate, seconds)
        for key, value in zip(HISTORY, values):
            self.history[key].append(value)
        if lambdas := self.model.lambdas():
            self.history.setdefault("lambdas", []).append(lambdas)

    def _save(self) -> None:
        state = {
            "identity": self.identity,
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "ema": None if self.ema is None else self.ema.state_dict(),
            "history": self.history,
        }
        save_atomically(state, self.checkpoint)

    def _load(self) -> None:
        try:
            state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            identity = state["identity"]
        except Exception as error:  # torch names no common class for its many ways to fail
            raise ValueError(
                f"{self.checkpoint} is no readable checkpoint ({error}); delete it to start anew"
            ) from error
        if identity != self.identity:
            raise ValueError(
                f"{self.checkpoint} belongs to another run:\n  it holds {identity}\n"
                f"  expected {self.identity}\ndelete it to start anew"
            )
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.history = state["history"]
