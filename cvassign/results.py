# LLM-assisted: prompts P1, P2, P5, P7, P10, see report.md
"""Runs as data, results as data: a run is a name and two configurations, a result one JSON file.

`run_or_load` is the only door: a notebook asks for a run and gets its result, from the file when
it is there, else by training.
"""

import json
import math
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors.torch import load_file, save_file
from torch import Tensor

from cvassign.data import DATASETS
from cvassign.device import describe, pick_device
from cvassign.files import replacing
from cvassign.train import TrainConfig, Trainer, predict
from cvassign.vit import VisionTransformer, ViTConfig, count_parameters

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"  # committed: a JSON file a run, and the weights that figures need
FORMAT = 1  # of the result files; a file with a higher number was written by a newer version
REQUIRED = {
    "format": int, "name": str, "section": str, "preset": str, "seed": int, "epochs": int,
    "config": dict, "n_params": int, "history": dict, "val_accuracy": float,
    "test_accuracy": float, "train_seconds": float, "images_per_second": float, "device": str,
    "versions": dict,
}  # fmt: skip


# Settings that were removed, with the value at which they did nothing: a stored result may name them.
REMOVED = {"model": {}, "train": {"keep": 1.0, "keep_epochs": 0, "ema_decay": None}}


class ResultError(ValueError):
    """A result file that cannot be used; the message names the file and what is wrong."""


class Busy(RuntimeError):
    """Another process is training this run."""


@dataclass(frozen=True)
class Run:
    """One training run, wholly described."""

    name: str  # unique within a preset, for example "vit-patch-8"
    section: str  # of the assignment, for example "1.2.1"
    label: str  # what distinguishes it within its section, for example "patch 8"
    preset: str  # "full", "cpu" or "smoke"
    seed: int
    model: ViTConfig
    train: TrainConfig
    dataset: str = "cifar10"  # a key of data.DATASETS
    keep_weights: bool = True  # store the trained weights beside the result ...
    keep_logits: bool = False  # ... and what the model says of the test images
    on_gpu: bool = False  # too long for two cores: left to whoever has an accelerator

    @property
    def file_name(self) -> str:
        """The result file: preset/name-sSEED.json."""
        return f"{self.preset}/{self.name}-s{self.seed}.json"


def write_json(obj, path: Path) -> None:
    """Writes JSON atomically; numbers that are not finite become null."""
    text = json.dumps(_finite(obj), indent=1, allow_nan=False) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _finite(obj):
    """`obj` with floats rounded to six digits, and None for those that are not finite."""
    if isinstance(obj, dict):
        return {k: _finite(v) for k, v in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [_finite(v) for v in obj]
    if isinstance(obj, float):
        return float(f"{obj:.6g}") if math.isfinite(obj) else None
    return obj


def read_result(path: Path) -> dict:
    """The result in a file.

    Raises:
        ResultError: if the file is missing, damaged, no result, or of a newer version.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultError(f"{path}: no readable result file: {error}") from error
    if not isinstance(result, dict) or not isinstance(result.get("format"), int):
        raise ResultError(f"{path}: not a result file of this project")
    if result["format"] > FORMAT:
        raise ResultError(
            f"{path}: written by a newer version (format {result['format']}, this program "
            f"reads {FORMAT}); update the program"
        )
    for key, kind in REQUIRED.items():
        if not isinstance(result.get(key), (int, float) if kind is float else kind):
            raise ResultError(
                f"{path}: expected {key!r} to be {kind.__name__}, got {result.get(key)!r}"
            )
    for key in ("val_accuracy", "test_accuracy"):
        if not 0 <= result[key] <= 100:
            raise ResultError(f"{path}: {key} {result[key]} is no percentage; delete the file")
    losses = result["history"].get("train_loss", []) + result["history"].get("val_loss", [])
    if None in losses:
        raise ResultError(f"{path}: a loss is not finite, its training diverged; delete it")
    return result


def run_config(run: Run) -> dict:
    """The part of a result that says what was run."""
    return {"model": asdict(run.model), "train": asdict(run.train), "dataset": run.dataset}


def _settings(config: dict) -> dict:
    """The settings of a `run_config` that are not at their defaults, {"model.depth": 6, ...}: two
    runs are the same if these are. A setting that comes or goes breaks no file."""
    found = {"dataset": config.get("dataset")}
    for part, kind in (("model", ViTConfig), ("train", TrainConfig)):
        defaults = {f.name: f.default for f in fields(kind)} | REMOVED[part]
        given = config.get(part)
        if not isinstance(given, dict):
            found[part] = given  # no settings at all: equal to no run's
            continue
        values = defaults | given
        found |= {
            f"{part}.{k}": v for k, v in values.items() if k not in defaults or v != defaults[k]
        }
    return found


def load(run: Run, results: Path = RESULTS) -> dict | None:
    """The stored result of `run`, or None if there is none.

    Raises:
        ResultError: if its file cannot be read, or holds a run of another configuration.
    """
    path = results / run.file_name
    if not path.exists():
        return None
    result = read_result(path)
    for key in ("name", "preset", "seed"):  # a copied file must not count as another run
        if result[key] != getattr(run, key):
            raise ResultError(f"{path}: expected {key} {getattr(run, key)!r}, got {result[key]!r}")
    held = _settings(result["config"])
    asked = _settings(json.loads(json.dumps(_finite(run_config(run)))))  # as it is written
    if held != asked:
        changed = {
            k: (held.get(k, "default"), asked.get(k, "default"))
            for k in held | asked
            if held.get(k, "default") != asked.get(k, "default")
        }
        raise ResultError(f"{path}: holds another configuration (stored, expected): {changed}")
    return result


def run_or_load(
    run: Run,
    results: Path = RESULTS,
    state: Path | None = None,
    device: str | None = None,
    progress: bool = True,
    deadline: float | None = None,
) -> dict:
    """The result of `run`: from its file if there is one, else by training it now.

    Args:
        results: folder of the result files; weights go to its subfolder `weights`.
        state: folder of the checkpoints of unfinished runs (default `checkpoints` in `results`).
        device: where to train; the default is a GPU if there is one.
        progress: show a progress bar.
        deadline: when to stop with the state kept, see `Trainer.fit`.

    Raises:
        Busy: if another process is training the same run.
        TimeUp: at the deadline.
        ResultError: if the stored result cannot be used.
    """
    stored = load(run, results)
    if stored is not None:
        return stored
    state = state or results / "checkpoints"
    checkpoint = state / run.file_name.replace(".json", ".pt")
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{checkpoint}.lock")  # the system releases it when its process dies
    try:
        held = lock.acquire(timeout=0)
    except Timeout as error:
        raise Busy(f"{run.name} (seed {run.seed}) is being trained by another process") from error
    with held:
        if (stored := load(run, results)) is not None:
            return stored  # finished by the process that held the lock before us
        where = pick_device(device)
        data = DATASETS[run.dataset]().to(where)
        trainer = Trainer(run.model, run.train, run.seed, data, checkpoint)
        trainer.fit(progress, deadline)
        result = finish(run, trainer, results)
        checkpoint.unlink(missing_ok=True)
    return result


def finish(run: Run, trainer: Trainer, results: Path = RESULTS) -> dict:
    """Tests the trained model once and stores what the run leaves; returns its result."""
    test = trainer.data.test
    logits = predict(trainer.model, test.images)
    if run.keep_weights:
        save_weights(trainer.model, weights_path(run, results))
    if run.keep_logits:
        save_logits(logits, logits_path(run, results))
    result = _result(run, trainer, 100 * (logits.argmax(1) == test.labels).float().mean().item())
    write_json(result, results / run.file_name)
    return result


def _result(run: Run, trainer: Trainer, test_accuracy: float) -> dict:
    return {
        "format": FORMAT,
        "name": run.name,
        "section": run.section,
        "label": run.label,
        "preset": run.preset,
        "seed": run.seed,
        "epochs": run.train.epochs,
        "config": run_config(run),
        "n_params": count_parameters(trainer.model),
        "history": trainer.history,
        "val_accuracy": trainer.history["val_accuracy"][-1],
        "test_accuracy": test_accuracy,
        "train_seconds": sum(trainer.history["seconds"]),
        "images_per_second": trainer.images_per_second,
        **describe(trainer.device),
    }


def weights_path(run: Run, results: Path = RESULTS) -> Path:
    """Where the trained weights of a run are stored, in half precision."""
    return results / "weights" / run.file_name.replace(".json", ".safetensors")


def save_weights(model: VisionTransformer, path: Path) -> None:
    """Writes the model's weights in half precision, atomically."""
    weights = {k: v.half().cpu().contiguous() for k, v in model.state_dict().items()}
    with replacing(path) as temporary:
        save_file(weights, temporary)


def logits_path(run: Run, results: Path = RESULTS) -> Path:
    """Where a run's test logits are stored: 200 KB instead of a forward pass."""
    return results / "logits" / run.file_name.replace(".json", ".safetensors")


def save_logits(logits: Tensor, path: Path) -> None:
    """Writes logits (n, K) in half precision, atomically."""
    with replacing(path) as temporary:
        save_file({"test": logits.half().cpu()}, temporary)


def load_logits(run: Run, results: Path = RESULTS) -> Tensor:
    """What the trained model of a run says of the test images, logits (n, K) in fp32.

    Raises:
        ResultError: if they are not stored or cannot be read.
    """
    path = logits_path(run, results)
    try:
        return load_file(path)["test"].float()
    except Exception as error:  # missing, truncated: each its own class
        raise ResultError(f"{path}: no usable logits: {error}") from error


def load_model(run: Run, results: Path = RESULTS) -> VisionTransformer:
    """The trained model of a run, in fp32 on the CPU, in evaluation mode.

    Raises:
        ResultError: if its weights are not stored or do not fit.
    """
    path = weights_path(run, results)
    try:
        weights = load_file(path)
        model = VisionTransformer(run.model)
        model.load_state_dict({k: v.float() for k, v in weights.items()})
    except Exception as error:  # missing, truncated, other shapes: each its own class
        raise ResultError(f"{path}: no usable weights: {error}") from error
    return model.eval()


def load_all(runs: list[Run], results: Path = RESULTS) -> list[dict]:
    """The stored results of those `runs` that have one, under the labels of `runs`.

    A damaged file is warned of and left out. One result may serve several experiments (the
    reference recipe is "patch 4" in one table), so the label is the run's, not the file's.
    """
    found = []
    for run in runs:
        try:
            result = load(run, results)
        except ResultError as error:
            warnings.warn(str(error), stacklevel=2)
            continue
        if result is not None:
            found.append(result | {"label": run.label, "section": run.section})
    return found
