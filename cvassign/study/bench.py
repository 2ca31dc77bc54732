# LLM-assisted: prompts P6, see report.md
"""How fast it all is, measured side by side on one machine and stored as JSON.

    python -m cvassign.study.bench [--out results/bench] [--device cpu|cuda] [--quick]

Who is compared takes turns, several rounds long: a machine's clock and its other work drift, and a
ratio of two things that were measured a second apart does not. Stored are the seconds of every
round; a ratio is the median of the rounds' ratios.

The loop "as usually written" (torchvision's CIFAR10 and transforms, a DataLoader, timm's model,
fp32) is `usual_loop.py`, in a process of its own: once as its user would run it, and once with the
one setting of the environment that this package changes (see `cvassign/__init__.py`).
"""

import argparse
import itertools
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
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from cvassign.attention import scaled_dot_product_attention
from cvassign.data import DATASETS, MEAN, STD, Dataset, Split, normalise
from cvassign.experiments import experiment_runs
from cvassign.optim import build_optimizers
from cvassign.clip.precision import describe
from cvassign.results import RESULTS, write_json
from cvassign.rollout import attention_rollout, cls_attention, rollout_map
from cvassign.train import (
    COMPILE_STEPS, TrainConfig, Trainer, use_bf16, should_compile, pick_device,
)
from cvassign.vit import VisionTransformer, ViTConfig, count_parameters

FORMAT = 1  # of the file
USUAL = "usual loop, timm's model"
USUAL_WAITING = "usual loop, timm's model, threads waiting as ours"
LEAST_ROUNDS = 3  # a median of fewer says nothing


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int  # at most, of each comparison
    seconds: float  # after which a comparison starts no further round
    steps: int  # optimizer steps a round
    images: int  # of one call that looks at attention
    matrix: int  # side of the matrices whose product gives the machine's peak
    batch: int | None = None  # images a step; None: the preset's
    compile: bool = True  # also measure compiled layers, where a long run has them


SIZES = {
    "cpu": Size(rounds=15, seconds=60, steps=6, images=50, matrix=2048),
    "cuda": Size(rounds=9, seconds=25, steps=60, images=200, matrix=8192),
    "quick": Size(rounds=3, seconds=1, steps=2, images=4, matrix=256, batch=8, compile=False),
}


def synchronise(device: torch.device) -> None:
    """A GPU works on while Python goes on: no clock may be read before it is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def alternate(candidates: dict[str, Callable[[], float]], size: Size) -> dict[str, list[float]]:
    """The seconds of each candidate in every round, after one round that does not count.

    Args:
        candidates: name -> a function that does its work once and returns the seconds it took.
        size: gives the number of rounds.

    Returns:
        name -> as many seconds as there were rounds, at least `LEAST_ROUNDS`.
    """
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
    return {"median": statistics.median(values), "min": min(values), "max": max(values),
            "rounds": values}  # fmt: skip


def rates(seconds: dict[str, list[float]], amount: float) -> dict[str, dict]:
    """Each candidate's amount a second (images, FLOP) by round."""
    return {name: summary([amount / s for s in part]) for name, part in seconds.items()}


def ratio(seconds: dict[str, list[float]], slow: str, fast: str) -> dict:
    """How many times the seconds of `fast` those of `slow` are, round by round."""
    return summary([a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)])


# ----------------------------------------------------------------------- the training loops


def timm_shape(config: ViTConfig) -> dict:
    """Arguments of timm's Vision Transformer of the same shape."""
    return dict(
        img_size=config.image_size, patch_size=config.patch_size, num_classes=config.num_classes,
        embed_dim=config.embed_dim, depth=config.depth, num_heads=config.num_heads,
        mlp_ratio=config.mlp_ratio,
    )  # fmt: skip


@contextmanager
def usual_loop(config: ViTConfig, batch_size: int, split: Split, device: torch.device, workers: int,
               waiting: str | None) -> Iterator[Callable[[int], float]]:  # fmt: skip
    """`usual_loop.py` at work in a process of its own: a function from steps to their seconds.

    Args:
        workers: processes that load its data.
        waiting: its GOMP_SPINCOUNT; None for its user's, who has none.
    """
    task = dict(
        shape=timm_shape(config), images=split.images.cpu(), labels=split.labels.cpu(), mean=MEAN,
        std=STD, batch_size=batch_size, device=str(device), workers=workers,
    )  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    environment |= {} if waiting is None else {"GOMP_SPINCOUNT": waiting}
    # -P: the modules beside that program, of which one is called "data", are none of its own
    program = [sys.executable, "-P", str(Path(__file__).with_name("usual_loop.py"))]
    with tempfile.TemporaryDirectory() as folder:
        torch.save(task, path := Path(folder) / "task.pt")
        with subprocess.Popen([*program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True, env=environment) as process:  # fmt: skip

            def seconds(steps: int) -> float:
                try:
                    print(steps, file=process.stdin, flush=True)
                    return float(process.stdout.readline())
                except (OSError, ValueError):  # no reader, no number
                    raise RuntimeError(
                        f"the usual loop ended with exit code {process.wait()}"
                    ) from None

            yield seconds  # the program ends with its input, which is closed here


class TimmInOurLoop(nn.Module):
    """timm's model with the three things that our Trainer asks of a model."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.config, self.layers = config, []
        self.vit = TimmViT(**timm_shape(config))

    def forward(self, images: Tensor) -> Tensor:
        return self.vit(images)

    def lambdas(self) -> list[float]:
        return []


def our_loop(config: ViTConfig, train: TrainConfig, data: Dataset, steps: int,
             timm: bool = False, compiled: bool = False) -> Callable[[], float]:  # fmt: skip
    """A round of our Trainer: its augmentation and `steps` steps; returns the seconds.

    Args:
        config: the model's shape.
        train: the recipe.
        data: on the training device.
        steps: optimizer steps a round.
        timm: train timm's model instead of ours.
        compiled: compile our model's layers, as `Trainer` does for a run of some length.
    """
    device = data.train.images.device
    n = steps * train.batch_size
    if n > len(data.train):
        raise ValueError(f"{steps} steps want {n} training images, got {len(data.train)}")
    part = Split(data.train.images[:n], data.train.labels[:n])
    once = replace(train, epochs=1, warmup_epochs=0)  # a warm-up may be longer, and costs no time
    trainer = Trainer(config, once, 0, replace(data, train=part))
    if timm:
        trainer.model = TimmInOurLoop(config).to(device)
        trainer.optimizers = build_optimizers(
            trainer.model, train.optimizer, train.learning_rate, train.weight_decay
        )
    elif compiled:
        for layer in trainer.model.layers:
            layer.compile(dynamic=False)
    silent = tqdm(disable=True)

    def one_round() -> float:
        synchronise(device)
        start = time.perf_counter()
        trainer._train_epoch(silent)  # ends with reading the losses, which waits for the device
        return time.perf_counter() - start

    return one_round


def training(
    config: ViTConfig, train: TrainConfig, data: Dataset, size: Size, workers: int
) -> dict:
    """Images a second of the usual loop, of timm's model in our loop, and of ours."""
    device = data.train.images.device
    whole = replace(train, optimizer="adamw")  # as the usual loop
    with ExitStack() as processes:
        candidates = {}
        for name, waiting in ((USUAL, None), (USUAL_WAITING, os.environ["GOMP_SPINCOUNT"])):
            loop = usual_loop(config, train.batch_size, data.train, device, workers, waiting)
            candidates[name] = partial(processes.enter_context(loop), size.steps)
        candidates |= {
            "our loop, timm's model": our_loop(config, whole, data, size.steps, timm=True),
            "our loop, our model": our_loop(config, whole, data, size.steps),
        }
        ours = "our loop, our model"
        if size.compile and should_compile(device, COMPILE_STEPS[device.type]):
            ours = "our loop, our model, compiled"
            candidates[ours] = our_loop(config, whole, data, size.steps, compiled=True)
        seconds = alternate(candidates, size)
    images = size.steps * train.batch_size
    return {
        "images_per_second": rates(seconds, images),
        "ours": ours,  # what a long run uses here
        "ours_to_usual": ratio(seconds, USUAL, ours),
        "waiting_alone": ratio(seconds, USUAL, USUAL_WAITING),
        "loop_alone": ratio(seconds, USUAL_WAITING, "our loop, timm's model"),
        "model_alone": ratio(seconds, "our loop, timm's model", "our loop, our model"),
        "workers": workers,
    }


def costs(configs: dict[str, ViTConfig], train: TrainConfig, data: Dataset, size: Size,
          compiled: bool) -> dict:  # fmt: skip
    """Training time of an image by configuration: {name: {"ms_per_image": summary, ...}}."""
    candidates = {n: our_loop(c, train, data, size.steps, compiled=compiled)
                  for n, c in configs.items()}  # fmt: skip
    seconds = alternate(candidates, size)
    images = size.steps * train.batch_size
    device = data.train.images.device
    return {
        "seconds": seconds,
        "rows": {
            name: {
                "patch_size": c.patch_size, "depth": c.depth, "attention": c.attention,
                "tokens": c.grid**2 + 1,
                "n_params": count_parameters(VisionTransformer(c)),
                "flop_per_image": training_flop(c, device),
                "ms_per_image": summary([1000 * s / images for s in seconds[name]]),
            }
            for name, c in configs.items()
        },
    }  # fmt: skip


def training_flop(config: ViTConfig, device: torch.device) -> int:
    """Floating-point operations of one image forward and backward, by torch's counter: matrix
    products only, a multiplication and an addition counted as two."""
    model = VisionTransformer(config).to(device)
    images = torch.zeros(2, config.in_channels, config.image_size, config.image_size, device=device)
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    return counter.get_total_flops() // len(images)


# ------------------------------------------------------------------ peak, kernels, looking


def peak(size: Size, device: torch.device) -> dict:
    """FLOP a second of one square matrix product, by type: what this machine can do at most."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(size.matrix, size.matrix, device=device, dtype=dtype)
        seconds = alternate({"product": timed(lambda: a @ a, device)}, size)
        found[str(dtype).removeprefix("torch.")] = rates(seconds, 2 * size.matrix**3)["product"]
    return found


def timed(f: Callable[[], object], device: torch.device) -> Callable[[], float]:
    """f as `alternate` wants it."""

    def once() -> float:
        synchronise(device)
        start = time.perf_counter()
        f()
        synchronise(device)
        return time.perf_counter() - start

    return once


def attention_kernels(config: ViTConfig, batch: int, size: Size, device: torch.device) -> dict:
    """PyTorch's fused attention (SDPA) against the formula, forward and backward, by tokens, in the
    precision of training."""
    H, d = config.num_heads, config.embed_dim // config.num_heads
    like = dict(device=device, dtype=torch.bfloat16 if use_bf16(device) else torch.float32)
    found = {}
    for tokens in (17, 65, 257):  # patch 8, 4, 2
        q, k, v = (torch.randn(batch, H, tokens, d, **like, requires_grad=True) for _ in range(3))
        grad = torch.randn(batch, H, tokens, d, **like)
        paths = {"formula": lambda: scaled_dot_product_attention(q, k, v)[0],
                 "sdpa": lambda: F.scaled_dot_product_attention(q, k, v)}  # fmt: skip

        def backward(path: Callable[[], Tensor]) -> Callable[[], float]:
            def once() -> float:
                out = path()
                return timed(lambda: torch.autograd.grad(out, (q, k, v), grad), device)()

            return once

        candidates = {f"{n} forward": timed(path, device) for n, path in paths.items()}
        candidates |= {f"{n} backward": backward(path) for n, path in paths.items()}
        seconds = alternate(candidates, size)
        found[str(tokens)] = {
            "milliseconds": {n: summary([1000 * s for s in part]) for n, part in seconds.items()},
            "sdpa_to_formula": {
                way: ratio(seconds, f"sdpa {way}", f"formula {way}")
                for way in ("forward", "backward")
            },
        }
    return {"batch": batch, "heads": H, "head_size": d, "tokens": found}


def looking(config: ViTConfig, data: Dataset, size: Size) -> dict:
    """Milliseconds an image: a prediction, its CLS maps, its rollout."""
    device = data.train.images.device
    model = VisionTransformer(config).to(device).eval()
    images = data.train.images[: size.images]

    def maps() -> Tensor:
        return model(normalise(images), return_attention=True)[1]

    def rollout() -> Tensor:
        return rollout_map(attention_rollout(maps()))

    with torch.no_grad():
        seconds = alternate({
            "prediction": timed(lambda: model(normalise(images)), device),
            "CLS maps": timed(lambda: cls_attention(maps()), device),
            "rollout": timed(rollout, device),
        }, size)  # fmt: skip
    return {n: summary([1000 * s / len(images) for s in part]) for n, part in seconds.items()}


# -------------------------------------------------------------------------------- all of it


def bench(device: torch.device, quick: bool = False, log: Callable = print) -> dict:
    """Every measurement of this module on one device, as the file has it."""
    started = time.perf_counter()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None  # not on Windows
    size = SIZES["quick" if quick else device.type]
    preset = "smoke" if quick else "full" if device.type == "cuda" else "cpu"
    run = experiment_runs("reference", "vit", preset)[0]
    config, train = run.model, replace(run.train, label_smoothing=0.0, augment="crop+flip")
    if size.batch:
        train = replace(train, batch_size=size.batch)
    data = DATASETS[run.dataset]().to(device)
    workers = 0 if quick else min(4, os.cpu_count() or 1)
    # Comparisons of our own models with each other do not wait for the compiler on a CPU.
    compiled = device.type == "cuda" and size.compile
    found = {
        "format": FORMAT, **describe(device), "quick": quick, "load_before": load,
        "cores": os.cpu_count(), "preset": preset, "model": asdict(config),
        "batch_size": train.batch_size, "steps_per_round": size.steps,
    }  # fmt: skip

    def done(name: str) -> None:
        log(f"{time.perf_counter() - started:6.1f} s  {name}", flush=True)

    found["peak"] = peak(size, device)
    done("peak of the matrix product")
    found["training"] = training(config, train, data, size, workers)
    done("training loops")
    models = {"ViT": config, "Diff-ViT": replace(config, attention="diff")}
    found["models"] = costs(models, train, data, size, compiled)
    found["models"]["diff_to_vit"] = ratio(found["models"]["seconds"], "Diff-ViT", "ViT")
    done("ViT and Diff-ViT")
    few = replace(size, steps=max(1, size.steps // 2))
    L = config.depth
    grown = {f"patch {p}": replace(config, patch_size=p) for p in (8, 4, 2)}
    grown |= {f"depth {n}": replace(config, depth=n) for n in (max(1, L // 2), 2 * L)}
    found["growth"] = costs(grown, train, data, few, compiled)
    done("patch size and depth")
    found["attention"] = attention_kernels(config, train.batch_size, size, device)
    done("attention kernels")
    found["looking"] = looking(config, data, size)
    done("CLS maps and rollout")
    speed = found["training"]["images_per_second"][found["training"]["ours"]]["median"]
    achieved = speed * training_flop(config, device)
    found["share_of_peak"] = {
        "flop_per_second": achieved,
        **{dtype: achieved / p["median"] for dtype, p in found["peak"].items()},
    }
    found["seconds"] = time.perf_counter() - started
    return found


def show(found: dict) -> None:
    """Prints the main numbers."""
    t = found["training"]
    rows = [(n, f"{r['median']:.0f} images/s") for n, r in t["images_per_second"].items()]
    rows += [
        (label, f"{r['median']:.2f} ({r['min']:.2f} to {r['max']:.2f})")
        for label, r in (
            ("ours / usual", t["ours_to_usual"]),
            ("Diff-ViT / ViT, time of a step", found["models"]["diff_to_vit"]),
            *((f"SDPA / formula, backward, {n} tokens", k["sdpa_to_formula"]["backward"])
              for n, k in found["attention"]["tokens"].items()),
        )
    ]  # fmt: skip
    rows += [(f"{n}, an image", f"{r['median']:.3f} ms") for n, r in found["looking"].items()]
    rows += [(f"share of the {d} peak", f"{s:.1%}")
             for d, s in itertools.islice(found["share_of_peak"].items(), 1, None)]  # fmt: skip
    for name, text in rows:
        print(f"{name:48} {text}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m cvassign.study.bench", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--out", type=Path, default=RESULTS / "bench", help="folder of the file")
    parser.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
    parser.add_argument("--quick", action="store_true",
                        help="seconds, on tiny generated data: shows that it runs, no result")
    given = parser.parse_args(arguments)
    device = pick_device(given.device)
    if given.quick and given.out == RESULTS / "bench":
        parser.error("--quick measures nothing: give it a folder of its own with --out")
    found = bench(device, given.quick)
    path = given.out / f"{device.type}.json"
    write_json(found, path)
    show(found)
    print(f"{path.name} written in {found['seconds']:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
