# LLM-assisted: prompts P1, P2, P5, P7, P10, P15, P16, see report.md
"""Runs as data, results as data: a run is a name and two configurations, a result one JSON file.
`run_or_load` gives the `Result` of a run, from its file if there is one, else by training."""

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors.torch import load_file, save_file
from torch import Tensor

from cvassign.data import DATASETS, expected_fingerprint, fingerprint
from cvassign.device import describe, pick_device
from cvassign.files import replacing
from cvassign.train import TrainConfig, Trainer, predict
from cvassign.vit import VisionTransformer, ViTConfig, count_parameters, gflop_per_image

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"  # committed: a JSON file a run, and the weights that figures need
FORMAT = 2  # of the result files
PER_EPOCH = ("train_loss", "val_loss", "val_accuracy", "learning_rate", "seconds")


class ResultError(ValueError):
    """A result file that cannot be used; the message names the file and what is wrong."""


class Busy(RuntimeError):
    """Another process is training this run."""


@dataclass(frozen=True)
class Run:
    """One training run, wholly described."""

    name: str  # unique within a preset, for example "vit-reference-patch-size-8"
    label: str  # what distinguishes it within its experiment, for example "patch 8"
    section: str  # of the assignment, for example "1.2.1"
    preset: str  # "full", "cpu" or "smoke"
    seed: int
    model: ViTConfig
    train: TrainConfig
    dataset: str = "cifar10"  # a key of data.DATASETS
    keep_weights: bool = False  # store the trained weights beside the result ...
    keep_logits: bool = False  # ... and what the model says of the test images

    @property
    def file_name(self) -> str:
        return f"{self.preset}/{self.name}-s{self.seed}.json"


@dataclass(frozen=True)
class Result:
    """What a run gave. Its run is that of whoever asks: one result serves several experiments
    (the reference recipe is "patch 4" in one table), each with a label of its own."""

    run: Run
    history: dict  # key -> a value an epoch, see train.HISTORY
    val: float  # accuracy after the last epoch on the validation split, percent
    test: float  # the same on the test split, read once
    n_params: int
    seconds: float  # of training, validation left out
    images_per_second: float
    device: str  # see device.describe, as the next two
    threads: int
    versions: dict
    data: str  # the fingerprint of the images, see data.fingerprint

    model = property(lambda self: self.run.model)
    train = property(lambda self: self.run.train)
    label = property(lambda self: self.run.label)
    kind = property(lambda self: self.run.model.kind)  # "ViT" or "Diff-ViT"
    gflop = cached_property(lambda self: gflop_per_image(self.model))  # of one image's forward pass
    # A CPU draws other random numbers: its runs share no order of images with a GPU's.
    on_cpu = property(lambda self: self.device.startswith("CPU"))


# The key of each field of a result in its file.
NAMES = {"val": "val_accuracy", "test": "test_accuracy", "seconds": "train_seconds"}
KEYS = {NAMES.get(f.name, f.name): f for f in fields(Result) if f.name != "run"}


def write_json(obj, path: Path) -> None:
    """Writes JSON atomically, with its numbers `_rounded`."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(_rounded(obj), indent=1) + "\n", encoding="utf-8")


def _rounded(obj):
    """`obj` as files hold it: floats of six digits, None for those that are not finite."""
    digits = {"parse_float": lambda number: float(f"{float(number):.6g}")}
    return json.loads(json.dumps(obj), parse_constant=lambda _: None, **digits)


def _identity(run: Run) -> dict:
    return {"format": FORMAT, "name": run.name, "preset": run.preset, "seed": run.seed}


def save(result: Result, results: Path = RESULTS) -> None:
    run = result.run
    about = _identity(run) | {"model": asdict(run.model), "train": asdict(run.train)}
    about |= {key: getattr(result, field.name) for key, field in KEYS.items()}
    write_json(about, results / run.file_name)


def load(run: Run, results: Path = RESULTS) -> Result | None:
    """The stored result of `run`, or None if there is none; ResultError if its file is damaged,
    contradicts itself or the logits beside it, or holds a run of another configuration or data."""
    path = results / run.file_name
    if not path.exists():
        return None
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        _check(held, run)
        if run.keep_logits and logits_path(run, results).exists():
            logits, labels = load_logits(run, results)
            accuracy = 100 * (logits.argmax(1) == labels).float().mean().item()
            if abs(accuracy - held["test_accuracy"]) > 0.05:  # stored in half precision: ties
                said = f"test_accuracy {held['test_accuracy']} contradicts its logits"
                raise ValueError(f"{said}, which give {accuracy:.2f}")
    except (OSError, TypeError, ValueError) as error:
        how = "restore it (git checkout), or delete it and run python -m cvassign.experiments run"
        raise ResultError(f"{path}: no usable result: {error}; {how}") from error
    return Result(run, **{field.name: held[key] for key, field in KEYS.items()})


def _check(held: dict, run: Run) -> None:
    """Raises ValueError or TypeError if what a file holds is not a result of the run."""
    if not isinstance(held, dict):
        raise ValueError("not a result file of this project")
    # A copied file must not count as another run, nor one of other images as this one.
    for key, value in (_identity(run) | {"data": expected_fingerprint(run.dataset)}).items():
        if held.get(key) != value:
            raise ValueError(f"expected {key} {value!r}, got {held.get(key)!r}")
    kinds = {"model": dict, "train": dict} | {key: field.type for key, field in KEYS.items()}
    for key, kind in kinds.items():
        if not isinstance(held.get(key), (int, float) if kind is float else kind):
            raise ValueError(f"expected {key!r} to be {kind.__name__}, got {held.get(key)!r}")
    for key in ("val_accuracy", "test_accuracy"):
        if not 0 <= held[key] <= 100:
            raise ValueError(f"{key} {held[key]} is no percentage")
    epochs = held["train"].get("epochs")
    for key in PER_EPOCH:
        values = held["history"].get(key, [])
        if len(values) != epochs:
            raise ValueError(f"its history has {len(values)} of {epochs} epochs of {key!r}")
        if None in values:
            raise ValueError(f"{key!r} is not finite, its training diverged")
    if abs(held["history"]["val_accuracy"][-1] - held["val_accuracy"]) > 0.01:
        raise ValueError("val_accuracy is not that of the last epoch")
    for part in ("model", "train"):
        config = getattr(run, part)
        stored = _rounded(asdict(type(config)(**held[part])))  # a setting that is new: its default
        asked = _rounded(asdict(config))
        if changed := {k: (stored[k], v) for k, v in asked.items() if stored[k] != v}:
            raise ValueError(f"holds another configuration (stored, expected): {changed}")


def load_all(runs: list[Run], results: Path = RESULTS) -> list[Result]:
    """The stored results of `runs`, as far as they have one; a damaged file is warned of."""
    found = []
    for run in runs:
        try:
            found += [result] if (result := load(run, results)) else []
        except ResultError as error:
            warnings.warn(str(error), stacklevel=2)
    return found


def by_name(results: Sequence[Result]) -> list[list[Result]]:
    """The results in groups that differ by their seed only, in the order of first appearance;
    ValueError if there are none."""
    if not results:
        raise ValueError("expected at least one result, got none")
    groups: dict[tuple, list[Result]] = {}
    for result in results:
        groups.setdefault((result.run.preset, result.run.name), []).append(result)
    return list(groups.values())


def by_label(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The same by label, of one experiment; empty if there are none."""
    return {group[0].label: group for group in by_name(results)} if results else {}


def run_or_load(
    run: Run, results: Path = RESULTS, device: str | None = None, progress=True, deadline=math.inf
) -> Result:
    """The result of `run`: from its file if there is one, else by training it now, as far as
    `deadline` allows (see `Trainer.fit`). Busy if another process is training it, ResultError if
    the stored result cannot be used."""
    if stored := load(run, results):
        return stored
    checkpoint = results / "checkpoints" / run.file_name.replace(".json", ".pt")
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{checkpoint}.lock", timeout=0):  # the system frees it of a dead process
            if stored := load(run, results):
                return stored  # finished by the process that held the lock before us
            data = DATASETS[run.dataset]().to(pick_device(device))
            trainer = Trainer(run.model, run.train, run.seed, data, checkpoint)
            trainer.fit(progress, deadline)
            result = finish(run, trainer, results)
            checkpoint.unlink(missing_ok=True)
            return result
    except Timeout as error:
        raise Busy(f"{run.name} (seed {run.seed}) is being trained by another process") from error


def finish(run: Run, trainer: Trainer, results: Path = RESULTS) -> Result:
    """Tests the trained model once and stores what the run leaves; returns its result."""
    test = trainer.data.test
    logits = predict(trainer.model, test.images)
    if run.keep_weights:
        save_weights(trainer.model, weights_path(run, results))
    if run.keep_logits:
        with replacing(logits_path(run, results)) as temporary:
            save_file({"test": logits.half().cpu(), "labels": test.labels.byte().cpu()}, temporary)
    result = Result(
        run,
        trainer.history,
        val=trainer.history["val_accuracy"][-1],
        test=100 * (logits.argmax(1) == test.labels).float().mean().item(),
        n_params=count_parameters(trainer.model),
        seconds=sum(trainer.history["seconds"]),
        images_per_second=trainer.images_per_second,
        data=fingerprint(trainer.data),
        **describe(trainer.device),
    )
    save(result, results)
    return result


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


def load_logits(run: Run, results: Path = RESULTS) -> tuple[Tensor, Tensor]:
    """What the trained model of a run says of the test images, logits (n, K) in fp32, and the true
    classes (n,); ResultError if they are not stored or cannot be read."""
    path = logits_path(run, results)
    try:
        held = load_file(path)
        return held["test"].float(), held["labels"].long()
    except Exception as error:  # missing, truncated: each its own class
        raise ResultError(f"{path}: no usable logits: {error}") from error


def load_model(run: Run, results: Path = RESULTS) -> VisionTransformer:
    """The trained model of a run, in fp32 on the CPU, in evaluation mode; ResultError if its
    weights are not stored or do not fit."""
    path, model = weights_path(run, results), VisionTransformer(run.model)
    try:
        model.load_state_dict(load_file(path))  # copied into fp32
    except Exception as error:  # missing, truncated, other shapes: each its own class
        raise ResultError(f"{path}: no usable weights: {error}") from error
    return model.eval()
