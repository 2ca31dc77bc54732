# LLM-assisted: prompts P1, P2, P5, P7, P10, see report.md
"""One training loop for every model of the project.

The recipe is that of DeiT (arXiv 2012.12877), made short: AdamW or Muon, warm-up and cosine,
label smoothing, stochastic depth, augmentation, clipped gradients, bf16 autocast.

Nothing is lost: the state is written after every epoch, and every random number of an epoch comes
from (seed, epoch), so that a run that is killed and resumed on as many threads ends with the weights
of one that was not (on a GPU as far as its kernels add in a fixed order).

On a GPU the whole optimizer step is one CUDA graph. A small ViT's step is some 550 kernels of a few
microseconds each, and Python needs longer to launch them than the GPU to run them. A graph is a
recording of all these launches: made once, then replayed by a single call. It replays addresses, not
values, so what changes from step to step (images, targets, learning rate) is copied into tensors
that the recording reads.
"""

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from cvassign.augment import build_augmentation
from cvassign.data import Dataset, Split, normalise
from cvassign.device import autocast, should_compile
from cvassign.files import CheckpointError, load_checkpoint, replacing
from cvassign.optim import OPTIMIZERS, build_optimizers, lr_factor
from cvassign.vit import VisionTransformer, ViTConfig

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
    unmixed_epochs: int = 0  # the last epochs, without CutMix

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(
                f"epochs and batch_size must be positive, got {self.epochs}, {self.batch_size}"
            )
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise ValueError(
                f"warmup_epochs must be in [0, epochs = {self.epochs}], got {self.warmup_epochs}"
            )
        if not 0 <= self.unmixed_epochs <= self.epochs:
            raise ValueError(
                f"unmixed_epochs must be in [0, epochs = {self.epochs}], got {self.unmixed_epochs}"
            )
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be one of {OPTIMIZERS}, got {self.optimizer!r}")
        for name, low, high in (
            ("learning_rate", 0, math.inf),
            ("clip_norm", 0, math.inf),
            ("weight_decay", -1e-300, math.inf),
            ("label_smoothing", -1e-300, 1),
        ):
            value = getattr(self, name)
            if not low < value < high:  # false for NaN too
                raise ValueError(f"{name} must be between {max(low, 0)} and {high}, got {value}")
        build_augmentation(self.augment)  # raises ValueError on an unknown name


def non_default(config) -> dict:
    """The fields of a dataclass that differ from their defaults, by name.

    What is compared when a stored run is asked for: a field that comes or goes breaks no file.
    """
    defaults = {f.name: f.default for f in fields(config)}
    return {k: v for k, v in asdict(config).items() if v != defaults[k]}


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


class TimeUp(RuntimeError):
    """The deadline came before the last epoch."""


class Diverged(RuntimeError):
    """The loss is NaN or infinite: there is nothing to store."""


class Trainer:
    """Trains one model; `fit` runs the remaining epochs.

    Args:
        model_config: the model's shape.
        config: the recipe.
        seed: of the initial weights and of every random choice in training.
        data: the splits, on the device to train on.
        checkpoint: file of the state after the last whole epoch; None keeps no state.

    Attributes:
        step: trains on images x (B, 3, S, S) and soft targets y (B, K), returns the loss: the
            plain step, or on a GPU its graph.

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
        self.identity = repr((non_default(model_config), non_default(config), seed, data.name))
        torch.manual_seed(seed)
        self.model = VisionTransformer(model_config).to(self.device)
        self.steps = max(1, len(data.train) // config.batch_size)  # a last, short batch is left out
        if should_compile(self.device, self.steps * config.epochs):
            self._compile()
        self.optimizers = build_optimizers(
            self.model, config.optimizer, config.learning_rate, config.weight_decay
        )
        self.augmentation = build_augmentation(config.augment)
        self.history: dict[str, list] = {key: [] for key in HISTORY}
        # A tensor that all optimizers read: a CUDA graph could not see a Python number change.
        self.rate = torch.zeros((), device=self.device)
        if checkpoint is not None and checkpoint.exists():
            self._load()
        self._bind_rate()
        self.step: Callable[[Tensor, Tensor], Tensor] | None = None  # made at the first batch

    def _compile(self) -> None:
        """Compiles the layers and tries them: a broken compiler must not end a long run."""
        # Layer by layer: the layers share one graph, so compiling takes seconds, not minutes.
        torch.compiler.reset()  # it keeps eight graphs of one function, for all models together
        for layer in self.model.layers:
            layer.compile(dynamic=False)
        try:
            batch = self.data.train.images[: self.config.batch_size]
            with autocast(self.device):
                self.model.train()(normalise(batch)).float().sum().backward()
        except Exception as error:  # whatever a compiler, a linker or a temporary folder does
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            warnings.warn(f"training goes on without torch.compile: {reason}", stacklevel=3)
            for layer in self.model.layers:
                layer._compiled_call_impl = None
        self.model.zero_grad(set_to_none=True)

    def _bind_rate(self) -> None:
        """After loading too: that replaces the rate, and a graph would go on at a stale one."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.rate
                if "capturable" in group:  # a checkpoint may come from another device
                    group["capturable"] = self.device.type == "cuda"

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return len(self.history["train_loss"])

    def fit(self, progress: bool = True, deadline: float | None = None) -> VisionTransformer:
        """Trains to the last epoch and returns the model as it then is, never that of the best.

        Args:
            progress: show a progress bar.
            deadline: in `time.time()`'s seconds; no epoch is begun that would end after it.

        Raises:
            TimeUp: at the deadline; the checkpoint has the epochs done.
            Diverged: if the loss is not finite.
        """
        steps = self.config.epochs * self.steps
        with tqdm(
            total=steps, initial=self.epoch * self.steps, unit="step", disable=not progress
        ) as bar:
            while self.epoch < self.config.epochs:
                longest = max(self.history["seconds"][-3:], default=0)
                if deadline is not None and time.time() + longest > deadline:
                    raise TimeUp(f"{self.epoch} of {self.config.epochs} epochs are done")
                start = time.perf_counter()
                losses = self._train_epoch(bar)
                if not losses.isfinite().all():
                    raise Diverged(
                        f"training diverged in epoch {self.epoch + 1}: the loss is not finite; "
                        "a lower learning rate or longer warm-up may help"
                    )
                self._record(losses, time.perf_counter() - start)
                last = {k: v[-1] for k, v in self.history.items()}
                bar.set_postfix(
                    epoch=self.epoch,
                    loss=f"{last['train_loss']:.3f}",
                    val=f"{last['val_accuracy']:.1f}%",
                    images_s=f"{self.images_per_second:.0f}",
                )
                if self.checkpoint is not None:
                    self._save()
        return self.model

    @property
    def images_per_second(self) -> float:
        """Training images through the model a second, over all epochs but the first, which warms
        up (over that one if it is the only one). The validation of each epoch is not counted."""
        seconds = self.history["seconds"][1:] or self.history["seconds"]
        return self.steps * self.config.batch_size / (sum(seconds) / len(seconds))

    def _train_epoch(self, bar: tqdm) -> Tensor:
        """One pass over the training images: the loss of each step."""
        c, train = self.config, self.data.train
        # Everything random in this epoch follows from the seed and the epoch's number; the factor
        # keeps all pairs of them apart, as long as there are fewer epochs. The global generator
        # draws the layers that are dropped, `generator` the order of the images and their
        # augmentation. On a CPU both give one and the same sequence of numbers. That does no harm:
        # whether a layer is dropped may depend on an image's place and augmentation, as each of
        # these choices is still uniform, and new in every epoch.
        torch.manual_seed(1_000_003 * self.seed + self.epoch)
        generator = torch.Generator(self.device).manual_seed(1_000_003 * self.seed + self.epoch)
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
            if self.step is None:
                on_gpu = self.device.type == "cuda"
                self.step = self._captured(x, y) if on_gpu else self.plain_step
            done = (self.epoch * self.steps + i + 1) / (c.epochs * self.steps)
            self.rate.fill_(c.learning_rate * lr_factor(done, c.warmup_epochs / c.epochs))
            losses[i] = self.step(x, y)
            bar.update()
        return losses.cpu()

    def plain_step(self, x: Tensor, y: Tensor) -> Tensor:
        """One optimizer step at the rate `self.rate`, operation by operation."""
        with autocast(self.device):
            logits = self.model(x)
        loss = F.cross_entropy(logits.float(), y, label_smoothing=self.config.label_smoothing)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def _captured(self, x: Tensor, y: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """The step as a CUDA graph for batches like x and y; the plain step if that fails."""
        x, y = x.clone(), y.clone()  # what the graph reads; each step's batch is copied into them
        before = self._state()
        random = torch.cuda.get_rng_state(self.device)
        try:
            stream = torch.cuda.Stream()  # capturing asks for warm-up steps on another stream:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):  # they compile, allocate, and make the optimizers' state
                    self.plain_step(x, y)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                loss = self.plain_step(x, y)
        except RuntimeError as error:
            warnings.warn(f"the step runs without a CUDA graph: {error}", stacklevel=2)
            return self.plain_step
        finally:  # warming up must leave no trace
            self._restore(before)
            torch.cuda.set_rng_state(random, self.device)

        def replay(new_x: Tensor, new_y: Tensor) -> Tensor:
            x.copy_(new_x)
            y.copy_(new_y)
            graph.replay()
            return loss  # overwritten by the next replay

        return replay

    def _state(self) -> dict[tuple, Tensor]:
        """Copies of all tensors that a step changes, under keys that last."""
        found = {("model", k): v for k, v in self.model.state_dict().items()}
        for i, optimizer in enumerate(self.optimizers):
            for p, state in optimizer.state.items():
                found |= {(i, id(p), k): v for k, v in state.items()}
        return {k: v.clone() for k, v in found.items()}

    @torch.no_grad()
    def _restore(self, before: dict[tuple, Tensor]) -> None:
        """Puts the values of `_state` back in place: a graph keeps the tensors' addresses. State
        that was not there yet becomes zero, as every optimizer's is at its start."""
        for k, v in self.model.state_dict().items():
            v.copy_(before["model", k])
        for i, optimizer in enumerate(self.optimizers):
            for p, state in optimizer.state.items():
                for k, v in state.items():
                    v.copy_(before[i, id(p), k]) if (i, id(p), k) in before else v.zero_()

    def _record(self, losses: Tensor, seconds: float) -> None:
        # Not compiled: its batches have another shape, which would be compiled for an epoch's worth.
        with torch.compiler.set_stance("force_eager"):
            val_loss, val_accuracy = evaluate(self.model, self.data.val)
        parts = [part.mean().item() for part in losses.tensor_split(min(10, len(losses)))]
        rate = self.rate.item()
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
            "history": self.history,
        }
        save_atomically(state, self.checkpoint)

    def _load(self) -> None:
        try:
            state = load_checkpoint(self.checkpoint, self.device)
        except CheckpointError as error:
            raise ValueError(f"{error}\ndelete it to start anew") from error
        keys = {"identity", "model", "optimizers", "history"}
        if not isinstance(state, dict) or keys - state.keys():
            lacking = ", ".join(sorted(keys - (state.keys() if isinstance(state, dict) else set())))
            raise ValueError(
                f"{self.checkpoint} is no checkpoint of this trainer (it lacks {lacking}); "
                "delete it to start anew"
            )
        identity = state["identity"]
        if identity != self.identity:
            raise ValueError(
                f"{self.checkpoint} belongs to another run:\n  it holds {identity}\n"
                f"  expected {self.identity}\ndelete it to start anew"
            )
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        self.history = state["history"]
