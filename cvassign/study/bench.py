# LLM-assisted: prompts P6, P8, P15, see report.md
"""How fast it all is, measured side by side on one machine and stored as JSON.

    python -m cvassign.study.bench [--out results/bench] [--device cpu|cuda]

Who is compared takes turns, several rounds long: a machine's clock and its other work drift, and a
ratio of two things that were measured a second apart does not. Stored are the seconds of every
round; a ratio is the median of the rounds' ratios. The loop "as usually written" is
`usual_loop.py`, in a process of its own."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
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

USUAL, OURS = "usual loop, timm's model", "our loop, AdamW"
OURS_MUON, OURS_DIFF = "our loop, Muon", "our loop, Muon, Diff-ViT"
# Rounds of each comparison, beside a first one, and optimizer steps a round.
SIZES = {"cpu": (9, 6), "cuda": (9, 60), "quick": (3, 2)}


def timed(f: Callable[[], object], device: torch.device) -> float:
    """The seconds that f takes; a GPU, which works on while Python goes on, is waited for."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    start = now()
    f()
    return now() - start


def alternate(candidates: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """The seconds that each candidate says it took, in every round but a first one."""
    for candidate in candidates.values():
        candidate()  # compiles, fills caches, starts workers
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(rounds):
        # To and fro, so that nobody always comes after the same one.
        for name in candidates if turn % 2 == 0 else reversed(candidates):
            seconds[name].append(candidates[name]())
    return seconds


def summary(values: list[float]) -> dict:
    """Median and spread: {"median", "min", "max", "rounds"}."""
    spread = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return spread | {"rounds": values}


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
    # -P: the modules beside that program, of which one is called "ray", are none of its own
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
    part = Split(data.train.images[:n], data.train.labels[:n])
    once = replace(train, epochs=1, warmup_epochs=0)  # a warm-up may be longer, and costs no time
    trainer = Trainer(config, once, 0, replace(data, train=part))
    if compiled:
        compile_layers(trainer.model, normalise(part.images[: train.batch_size]))
    return partial(timed, trainer.train_epoch, data.train.images.device)


def attention_kernels(config: ViTConfig, batch: int, rounds: int, device: torch.device) -> dict:
    """How many times as long as the formula PyTorch's fused attention (SDPA) takes, forward and
    backward together, by tokens (patch 8, 4 and 2), in the precision of training."""
    H, d = config.num_heads, config.embed_dim // config.num_heads
    like = dict(device=device, dtype=torch.bfloat16 if use_bf16(device) else torch.float32)

    def step(attend: Callable[..., Tensor], qkv: list[Tensor]) -> None:
        torch.autograd.grad(attend(*qkv).sum(), qkv)

    kernels = {"formula": lambda *qkv: scaled_dot_product_attention(*qkv)[0]}
    kernels["sdpa"] = F.scaled_dot_product_attention
    found = {}
    for tokens in (17, 65, 257):
        qkv = [torch.randn(batch, H, tokens, d, **like, requires_grad=True) for _ in range(3)]
        steps = {k: partial(timed, partial(step, f, qkv), device) for k, f in kernels.items()}
        found[str(tokens)] = ratio(alternate(steps, rounds), "sdpa", "formula")
    return found


def bench(device: torch.device, quick: bool = False) -> dict:
    """Every measurement of this module on one device, as the file has it: of the loops images a
    second and ratios of their seconds, "diff_to_vit" those of a step, and `attention_kernels`;
    `quick` for a test of it all."""
    rounds, steps = SIZES["quick" if quick else device.type]
    preset = "smoke" if quick else "full" if device.type == "cuda" else "cpu"
    run = experiment_runs("reference", "vit", preset)[0]
    config, size = run.model, 8 if quick else run.train.batch_size
    train = replace(run.train, label_smoothing=0.0, augment="crop+flip", batch_size=size)
    workers = 0 if quick else min(4, cores())
    compiled = not quick and should_compile(device, 10**6)  # as a long run is
    data, muon = DATASETS[run.dataset]().to(device), replace(train, optimizer="muon")
    ours = {
        OURS: (config, replace(train, optimizer="adamw")),
        OURS_MUON: (config, muon),
        OURS_DIFF: (replace(config, attention="diff"), muon),
    }
    with usual_loop(config, size, data.train, device, workers) as usual:
        candidates = {name: our_loop(*pair, data, steps, compiled) for name, pair in ours.items()}
        seconds = alternate({USUAL: partial(usual, steps)} | candidates, rounds)
    images = steps * size
    return describe(device) | {
        "cores": cores(),
        "preset": preset,
        "model": asdict(config),
        "batch_size": size,
        "steps_per_round": steps,
        "training": {
            "images_per_second": {k: summary([images / s for s in v]) for k, v in seconds.items()},
            "compiled": compiled,
            "ours_to_usual": ratio(seconds, USUAL, OURS),
            "workers": workers,
        },
        "diff_to_vit": ratio(seconds, OURS_DIFF, OURS_MUON),
        "attention": attention_kernels(config, size, rounds, device),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = Parser("cvassign.study.bench", __doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "bench", help="folder of the file")
    parser.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
    given = parser.parse_args(arguments)
    try:
        device = pick_device(given.device)
    except ValueError as error:
        parser.error(str(error))
    found = bench(device)
    kind = "_bf16" * (device.type == "cpu" and use_bf16(device))
    path = given.out / f"{device.type}{kind}.json"
    write_json(found, path)
    training = found["training"]
    told = {f"{name}, images/s": r for name, r in training["images_per_second"].items()}
    told |= {"ours to usual": training["ours_to_usual"], "Diff-ViT to ViT": found["diff_to_vit"]}
    told |= {f"SDPA to formula, {n} tokens": r for n, r in found["attention"].items()}
    for name, r in told.items():
        print(f"{name:48} {r['median']:.2f} ({r['min']:.2f} to {r['max']:.2f})")
    print(path)


if __name__ == "__main__":
    main()
