# LLM-assisted: prompts P6, P8, P15, see report.md
"""How fast it all is, measured side by side on one machine and stored as JSON.

    python -m cvassign.study.bench [--out results/bench] [--device cpu|cuda] [--quick]

Who is compared takes turns, several rounds long: a machine's clock and its other work drift, and a
ratio of two things that were measured a second apart does not. Stored are the seconds of every
round; a ratio is the median of the rounds' ratios.

The loop "as usually written" (torchvision's CIFAR10 and transforms, a DataLoader, timm's model,
fp32) is `usual_loop.py`, in a process of its own, as its user would run it.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from cvassign.attention import scaled_dot_product_attention
from cvassign.capture import compile_layers
from cvassign.command import Parser
from cvassign.data import DATASETS, MEAN, STD, Dataset, Split, normalise
from cvassign.device import cores, describe, pick_device, should_compile, use_bf16
from cvassign.experiments import experiment_runs
from cvassign.results import RESULTS, write_json
from cvassign.train import TrainConfig, Trainer
from cvassign.vit import ViTConfig

FORMAT = 3  # of the file
USUAL, OURS, OURS_MUON = "usual loop, timm's model", "our loop, AdamW", "our loop, Muon"
LEAST_ROUNDS = 3  # a median of fewer says nothing


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int  # at most, of each comparison
    seconds: float  # after which a comparison starts no further round
    steps: int  # optimizer steps a round
    batch: int | None = None  # images a step; None: the preset's
    compile: bool = True  # also measure compiled layers, where a long run has them


SIZES = {
    "cpu": Size(rounds=15, seconds=60, steps=6),
    "cuda": Size(rounds=9, seconds=25, steps=60),
    "quick": Size(rounds=3, seconds=1, steps=2, batch=8, compile=False),
}


def timed(f: Callable[[], object], device: torch.device) -> Callable[[], float]:
    """f as a function that returns its seconds."""
    # A GPU works on while Python goes on: no clock may be read before it is done.
    wait = partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None

    def once() -> float:
        wait()
        start = time.perf_counter()
        f()
        wait()
        return time.perf_counter() - start

    return once


def alternate(candidates: dict[str, Callable[[], float]], size: Size) -> dict[str, list[float]]:
    """The seconds of each candidate, see `timed`, in every round but a first one."""
    names = list(candidates)
    for name in names:
        candidates[name]()  # compiles, fills caches, starts workers
    seconds: dict[str, list[float]] = {name: [] for name in names}
    started = time.perf_counter()
    for turn in range(size.rounds):
        if turn >= LEAST_ROUNDS and time.perf_counter() - started > size.seconds:
            break
        # To and fro, so that nobody always comes after the same one.
        for name in names if turn % 2 == 0 else reversed(names):
            seconds[name].append(candidates[name]())
    return seconds


def summary(values: list[float]) -> dict:
    """Median and spread: {"median", "min", "max", "rounds"}."""
    spread = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return spread | {"rounds": values}


def rates(seconds: dict[str, list[float]], amount: float) -> dict[str, dict]:
    """Each candidate's amount a second (images, FLOP) by round."""
    return {name: summary([amount / s for s in part]) for name, part in seconds.items()}


def ratio(seconds: dict[str, list[float]], slow: str, fast: str) -> dict:
    """How many times the seconds of `fast` those of `slow` are, round by round."""
    return summary([a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)])


def timm_shape(config: ViTConfig) -> dict:
    """Arguments of timm's Vision Transformer of the same shape."""
    same = ("patch_size", "num_classes", "embed_dim", "depth", "num_heads", "mlp_ratio")
    return {"img_size": config.image_size} | {k: getattr(config, k) for k in same}


@contextmanager
def usual_loop(
    config: ViTConfig, batch_size: int, split: Split, device: torch.device, workers: int
) -> Iterator[Callable[[int], float]]:
    """`usual_loop.py` at work in a process of its own: a function from steps to their seconds."""
    task = dict(shape=timm_shape(config), images=split.images.cpu(), labels=split.labels.cpu())
    task |= dict(moments=(MEAN, STD), batch_size=batch_size, device=str(device), workers=workers)
    # The one setting of the environment that this package changes, see `cvassign/__init__.py`.
    environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    # -P: the modules beside that program, of which one is called "data", are none of its own
    program = [sys.executable, "-P", str(Path(__file__).with_name("usual_loop.py"))]
    with tempfile.TemporaryDirectory() as folder:
        torch.save(task, path := Path(folder) / "task.pt")
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        with subprocess.Popen([*program, str(path)], env=environment, **pipes) as process:

            def seconds(steps: int) -> float:
                try:
                    print(steps, file=process.stdin, flush=True)
                    return float(process.stdout.readline())
                except (OSError, ValueError):  # no reader, no number
                    code = process.wait()
                    raise RuntimeError(f"the usual loop ended with exit code {code}") from None

            yield seconds  # the program ends with its input, which is closed here


def our_loop(
    config: ViTConfig, train: TrainConfig, data: Dataset, steps: int, compiled: bool
) -> Callable[[], float]:
    """The seconds of our Trainer's augmentation and `steps` steps; `compiled` as for a long run."""
    n = steps * train.batch_size
    if n > len(data.train):
        raise ValueError(f"{steps} steps want {n} training images, got {len(data.train)}")
    part = Split(data.train.images[:n], data.train.labels[:n])
    once = replace(train, epochs=1, warmup_epochs=0)  # a warm-up may be longer, and costs no time
    trainer = Trainer(config, once, 0, replace(data, train=part))
    if compiled:
        compile_layers(trainer.model, normalise(part.images[: train.batch_size]))
    return timed(trainer.train_epoch, data.train.images.device)


def training(
    config: ViTConfig, train: TrainConfig, data: Dataset, size: Size, workers: int
) -> dict:
    """Images a second of the usual loop, of ours with its optimizer, and of ours with Muon."""
    device = data.train.images.device
    compiled = size.compile and should_compile(device, 10**6)  # as a long run is
    with ExitStack() as processes:
        loop = usual_loop(config, train.batch_size, data.train, device, workers)
        candidates = {USUAL: partial(processes.enter_context(loop), size.steps)}
        for name, optimizer in ((OURS, "adamw"), (OURS_MUON, "muon")):
            recipe = replace(train, optimizer=optimizer)
            candidates[name] = our_loop(config, recipe, data, size.steps, compiled)
        seconds = alternate(candidates, size)
    found = {"images_per_second": rates(seconds, size.steps * train.batch_size)}
    found |= {"compiled": compiled, "ours_to_usual": ratio(seconds, USUAL, OURS)}
    return found | {"muon_to_usual": ratio(seconds, USUAL, OURS_MUON), "workers": workers}


def diff_to_vit(
    config: ViTConfig, train: TrainConfig, data: Dataset, size: Size, compiled: bool
) -> dict:
    """How many times as long a step of the Diff-ViT takes as one of the ViT."""
    models = {kind: replace(config, attention=kind) for kind in ("standard", "diff")}
    loops = {k: our_loop(m, train, data, size.steps, compiled) for k, m in models.items()}
    return ratio(alternate(loops, size), "diff", "standard")


def attention_kernels(config: ViTConfig, batch: int, size: Size, device: torch.device) -> dict:
    """How many times as long as the formula PyTorch's fused attention (SDPA) takes, forward and
    backward together, by tokens (patch 8, 4 and 2), in the precision of training."""
    H, d = config.num_heads, config.embed_dim // config.num_heads
    like = dict(device=device, dtype=torch.bfloat16 if use_bf16(device) else torch.float32)
    found = {}
    for tokens in (17, 65, 257):
        qkv = [torch.randn(batch, H, tokens, d, **like, requires_grad=True) for _ in range(3)]

        def formula(qkv: list[Tensor] = qkv) -> None:
            torch.autograd.grad(scaled_dot_product_attention(*qkv)[0].sum(), qkv)

        def sdpa(qkv: list[Tensor] = qkv) -> None:
            torch.autograd.grad(F.scaled_dot_product_attention(*qkv).sum(), qkv)

        seconds = alternate({f.__name__: timed(f, device) for f in (formula, sdpa)}, size)
        found[str(tokens)] = ratio(seconds, "sdpa", "formula")
    return found


def bench(device: torch.device, quick: bool = False) -> dict:
    """Every measurement of this module on one device, as the file has it."""
    started = time.perf_counter()
    size = SIZES["quick" if quick else device.type]
    preset = "smoke" if quick else "full" if device.type == "cuda" else "cpu"
    run = experiment_runs("reference", "vit", preset)[0]
    config, train = run.model, replace(run.train, label_smoothing=0.0, augment="crop+flip")
    if size.batch:
        train = replace(train, batch_size=size.batch)
    data = DATASETS[run.dataset]().to(device)
    workers = 0 if quick else min(4, cores())
    # Comparisons of our own models with each other do not wait for the compiler on a CPU.
    compiled = device.type == "cuda" and size.compile
    found = {"format": FORMAT} | describe(device)
    found |= {"quick": quick, "cores": cores(), "preset": preset, "model": asdict(config)}
    found |= {"batch_size": train.batch_size, "steps_per_round": size.steps}
    found["training"] = training(config, train, data, size, workers)
    print(f"{time.perf_counter() - started:6.1f} s  training loops", flush=True)
    found["diff_to_vit"] = diff_to_vit(config, train, data, size, compiled)
    print(f"{time.perf_counter() - started:6.1f} s  ViT and Diff-ViT", flush=True)
    found["attention"] = attention_kernels(config, train.batch_size, size, device)
    found["seconds"] = time.perf_counter() - started
    return found


def show(found: dict) -> None:
    """Prints the main numbers."""
    for name, r in found["training"]["images_per_second"].items():
        print(f"{name:48} {r['median']:.0f} images/s")
    ratios = {
        "ours / usual, AdamW in both": found["training"]["ours_to_usual"],
        "ours with Muon / usual": found["training"]["muon_to_usual"],
        "Diff-ViT / ViT, time of a step": found["diff_to_vit"],
    }
    ratios |= {f"SDPA / formula, {n} tokens": r for n, r in found["attention"].items()}
    for name, r in ratios.items():
        print(f"{name:48} {r['median']:.2f} ({r['min']:.2f} to {r['max']:.2f})")


def main(arguments: list[str] | None = None) -> int:
    parser = Parser("cvassign.study.bench", __doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "bench", help="folder of the file")
    parser.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
    parser.add_argument("--quick", action="store_true", help="a trial in seconds, no result")
    given = parser.parse_args(arguments)
    try:
        device = pick_device(given.device)
    except ValueError as error:
        parser.error(str(error))
    if given.quick and given.out == RESULTS / "bench":
        parser.error("--quick measures nothing: give it a folder of its own with --out")
    found = bench(device, given.quick)
    kind = "_bf16" * (device.type == "cpu" and use_bf16(device))
    path = given.out / f"{device.type}{kind}.json"
    write_json(found, path)
    show(found)
    print(f"{path.name} written in {found['seconds']:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
