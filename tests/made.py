# LLM-assisted: prompts P1, P15, see report.md
"""Results that nobody trained, for tests."""

import numpy as np

from cvassign.data import expected_fingerprint
from cvassign.results import PER_EPOCH, Result, Run
from cvassign.train import TrainConfig
from cvassign.vit import ViTConfig


def made_run(name: str = "vit", label: str = "", attention: str = "standard", **settings) -> Run:
    """A run of any name; `settings` are of its model, its recipe or its own."""
    model = {k: settings.pop(k) for k in [*settings] if hasattr(ViTConfig, k)}
    train = {k: settings.pop(k) for k in [*settings] if hasattr(TrainConfig, k)}
    train = TrainConfig(**dict(epochs=5, warmup_epochs=1, optimizer="muon") | train)
    own = dict(section="1.1", preset="cpu", seed=0) | settings
    model = ViTConfig(attention=attention, **model)
    return Run(name, label or name, model=model, train=train, **own)


def made_result(run: Run, **changes) -> Result:
    """A result of the run, with random curves that follow from its name and seed."""
    rng = np.random.default_rng([run.seed, *run.name.encode(), *run.model.attention.encode()])
    epochs = run.train.epochs
    history = {key: rng.random(epochs).tolist() for key in PER_EPOCH}
    history["train_loss_tenths"] = [[v + 0.1, v - 0.1] for v in history["train_loss"]]
    if run.model.kind == "Diff-ViT":
        history["lambdas"] = rng.random((epochs, 3)).tolist()
    val, test = changes.pop("val", 80 + 10 * rng.random()), 80 + 10 * rng.random()
    history["val_accuracy"][-1] = val
    made = dict(history=history, val=val, test=test, n_params=2_700_000, seconds=1.0, threads=1)
    made |= dict(images_per_second=1.0, device="none", versions={})
    return Result(run, **made | {"data": expected_fingerprint(run.dataset)} | changes)
