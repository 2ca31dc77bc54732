# LLM-assisted: prompts P1, P15, see report.md
"""Results that nobody trained, for tests."""

from dataclasses import fields

import numpy as np

from cvassign.data import expected_fingerprint
from cvassign.results import Result, Run
from cvassign.train import TrainConfig
from cvassign.vit import ViTConfig

LAYERS = 3


def made_run(name: str = "vit", label: str = "", attention: str = "standard", **settings) -> Run:
    """A run of any name; `settings` are of its model, its recipe or its own."""
    kinds = (ViTConfig, TrainConfig, Run)
    model, train, own = ({k: settings[k] for k in settings.keys() & f} for f in map(names, kinds))
    train = TrainConfig(**{"epochs": 5, "warmup_epochs": 1, "optimizer": "muon"} | train)
    own = dict(section="1.1", preset="cpu", seed=0) | own
    return Run(
        name, label or name, model=ViTConfig(attention=attention, **model), train=train, **own
    )


def names(kind: type) -> set[str]:
    return {field.name for field in fields(kind)}


def made_result(run: Run, **changes) -> Result:
    """A result of the run, with random curves that follow from its name and seed."""
    rng = np.random.default_rng([run.seed, *run.name.encode(), *run.model.attention.encode()])
    epochs = run.train.epochs
    keys = ("train_loss", "val_loss", "val_accuracy", "learning_rate", "seconds")
    history = {key: rng.random(epochs).tolist() for key in keys}
    history["train_loss_tenths"] = [[v + 0.1, v - 0.1] for v in history["train_loss"]]
    if run.model.kind == "Diff-ViT":
        history["lambdas"] = rng.random((epochs, LAYERS)).tolist()
    val, test = changes.pop("val", 80 + 10 * rng.random()), 80 + 10 * rng.random()
    history["val_accuracy"][-1] = val
    made = dict(history=history, val=val, test=test, n_params=2_700_000, seconds=1.0, threads=1)
    made |= dict(images_per_second=1.0, device="none", versions={})
    return Result(run, **made | {"data": expected_fingerprint(run.dataset)} | changes)
