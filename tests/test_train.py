# LLM-assisted: prompts P1, P2, P5, P15, see report.md
"""The trainer learns, repeats itself, survives kill -9, and does what its configuration says."""

import math
import multiprocessing
import os
import re
import signal
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from unittest.mock import MagicMock, Mock

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.testing import CompileCounter

from cvassign import capture, data, train
from cvassign.data import Dataset, Split, load_generated, normalise
from cvassign.optim import lr_factor
from cvassign.train import HISTORY, TimeUp, TrainConfig, Trainer, evaluate, non_default, predict
from cvassign.vit import VisionTransformer, ViTConfig

MODEL = ViTConfig(embed_dim=16, depth=2, num_heads=2, mlp_ratio=2.0, patch_size=8)
CONFIG = TrainConfig(epochs=3, batch_size=32, warmup_epochs=1, augment="none")
ONCE = replace(CONFIG, epochs=1)
# Everything that draws random numbers or keeps a state between steps.
AUGMENT = "crop+flip+randaugment(2,9)+cutmix"
ALL = replace(CONFIG, epochs=6, optimizer="muon", augment=AUGMENT, unmixed_epochs=2)
ALL_MODEL = replace(MODEL, attention="diff", drop_path=0.2)


def tiny(n: int = 96) -> Dataset:
    data = load_generated()
    cut = [Split(s.images[:n], s.labels[:n]) for s in (data.train, data.val)]
    return Dataset("tiny", *cut, test=None)


def assert_same(first: Trainer, second: Trainer) -> None:
    """Bit for bit; of the history all but the seconds."""
    pairs = [(first.model.state_dict(), second.model.state_dict())]
    for a, b in zip(first.optimizers, second.optimizers):
        pairs.append((a.state_dict()["state"], b.state_dict()["state"]))
    torch.testing.assert_close(*zip(*pairs), rtol=0, atol=0)
    assert first.history | {"seconds": 0} == second.history | {"seconds": 0}


def fitted(*args, **options) -> Trainer:
    trainer = Trainer(*args, **options)
    trainer.fit(progress=False)
    return trainer


def stopped(clock: list[float], monkeypatch, *args) -> None:
    """Trains until the clock has run over its deadline."""
    with monkeypatch.context() as patch, pytest.raises(TimeUp, match="3 of 6 epochs"):
        patch.setattr(train.time, "time", iter(clock).__next__)
        Trainer(*args).fit(False, deadline=1e6)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Trainer:
    return fitted(ALL_MODEL, ALL, 1, tiny(), tmp_path_factory.mktemp("whole") / "run.pt")


@pytest.mark.parametrize("optimizer, attention", (("adamw", "standard"), ("muon", "diff")))
def test_it_overfits_a_tiny_set(optimizer, attention):
    model, data = replace(MODEL, embed_dim=32, attention=attention), tiny(64)
    exact = dict(learning_rate=1e-2, label_smoothing=0.0, weight_decay=0.0)
    trainer = fitted(model, replace(CONFIG, epochs=40, optimizer=optimizer, **exact), 0, data)
    losses = trainer.history["train_loss"]
    assert losses[0] == pytest.approx(math.log(10), rel=0.15)  # it starts by guessing
    assert losses[-1] < 0.1 and ("lambdas" in trainer.history) == (attention == "diff")
    assert evaluate(trainer.model, data.train)[1] == 100


def train_and_wait(checkpoint: Path, threads: int, ready) -> None:
    """A process that trains and waits for its end in the middle of a save."""
    real_save = torch.save

    def save(state, path):
        real_save(state, path)
        if len(state["history"]["train_loss"]) == 3:
            os.truncate(path, path.stat().st_size // 2)
            ready.set()
            time.sleep(600)

    torch.set_num_threads(threads)
    torch.save = save
    fitted(ALL_MODEL, ALL, 1, tiny(), checkpoint)


def test_a_killed_and_stopped_run_ends_as_a_whole_one(uninterrupted, tmp_path, monkeypatch):
    run = ALL_MODEL, ALL, 1, tiny(), tmp_path / "run.pt"
    fresh = multiprocessing.get_context("spawn")
    told = run[-1], torch.get_num_threads(), (ready := fresh.Event())
    process = fresh.Process(target=train_and_wait, args=told, daemon=True)
    process.start()
    assert ready.wait(300)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert list(tmp_path.glob("*.tmp"))  # half of the file is there, under another name
    assert Trainer(*run).epoch == 2  # no more than the epoch at work was lost
    stopped([0.0, 1e9], monkeypatch, *run)
    assert_same(uninterrupted, fitted(*run))


@pytest.fixture
def on_gpu() -> Dataset:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return replace(tiny(160), test=tiny(1).val).to("cuda")


@pytest.mark.parametrize("optimizer", ("adamw", "muon"))
def test_on_a_gpu_the_graph_is_the_plain_step(optimizer, on_gpu, monkeypatch):
    """Equal losses and weights after ten steps, as far as bf16 products in another order allow."""
    config = replace(ALL, epochs=2, optimizer=optimizer, augment="flip+cutmix", unmixed_epochs=0)
    graph = fitted(ALL_MODEL, config, 1, on_gpu)
    assert graph.step != graph.plain_step  # captured, without a warning
    monkeypatch.setattr(train, "captured", lambda step, *parts: step)
    plain = fitted(ALL_MODEL, config, 1, on_gpu)
    assert graph.history["train_loss"] == pytest.approx(plain.history["train_loss"], rel=2e-3)
    of_graph, of_plain = graph.model.state_dict(), plain.model.state_dict()
    torch.testing.assert_close(of_graph, of_plain, rtol=0.02, atol=0.005)


def test_on_a_gpu_a_resumed_run_is_an_uninterrupted_one(on_gpu, tmp_path, monkeypatch):
    run = ALL_MODEL, ALL, 1, on_gpu
    whole = fitted(*run).history
    stopped([0.0] * 3 + [1e9], monkeypatch, *run, tmp_path / "run.pt")
    resumed = fitted(*run, tmp_path / "run.pt").history
    assert resumed["train_loss"] == pytest.approx(whole["train_loss"], rel=2e-3)
    assert resumed["learning_rate"] == whole["learning_rate"]


@pytest.mark.parametrize("content", (None, [1, 2], {"model": {}}, MODEL))
def test_a_damaged_or_foreign_checkpoint_is_named(content, uninterrupted, tmp_path):
    """None: a real one without its end; MODEL is of a class, which weights_only refuses."""
    torch.save(content, path := tmp_path / "damaged.pt")
    if content is None:
        path.write_bytes(uninterrupted.checkpoint.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="(?s)damaged.pt(:| lacks).*delete it to start anew"):
        Trainer(MODEL, ONCE, 0, tiny(), path)


@pytest.mark.parametrize("what", ("model", "recipe", "seed", "data", "fewer images"))
def test_a_checkpoint_of_another_run_is_named(uninterrupted, what):
    model = replace(ALL_MODEL, depth=3 if what == "model" else 2)
    config = replace(ALL, learning_rate=2e-3 if what == "recipe" else 1e-3)
    data = tiny(64 if what == "fewer images" else 96)
    data, seed = replace(data, name="other" if what == "data" else "tiny"), 1 + (what == "seed")
    with pytest.raises(ValueError, match="run.pt belongs to another run") as error:
        Trainer(model, config, seed, data, uninterrupted.checkpoint)
    for part in (config, ALL_MODEL, model):
        assert repr(non_default(part)) in str(error.value)  # what it holds and what was expected
    assert f"{seed}, {data.name!r}" in str(error.value)
    assert non_default(ONCE) == dict(epochs=1, batch_size=32, warmup_epochs=1, augment="none")


def test_history_has_a_value_of_each_kind_for_each_epoch(uninterrupted):
    history, model = uninterrupted.history, uninterrupted.model
    assert set(history) == {*HISTORY, "lambdas"}
    assert all(len(values) == 6 for values in history.values())
    rates = [1e-3 * lr_factor((e + 1) / 6, 1 / 6) for e in range(6)]
    assert history["learning_rate"] == pytest.approx(rates, rel=1e-6, abs=1e-9)
    last = [history[key][-1] for key in ("val_loss", "val_accuracy", "lambdas")]
    assert last == [*evaluate(model, tiny().val), model.lambdas()]
    for parts, mean in zip(history["train_loss_tenths"], history["train_loss"]):
        assert len(parts) == 3  # of three steps: fewer than ten, one a part
        assert sum(parts) / 3 == pytest.approx(mean, rel=1e-5)


def test_images_per_second_leaves_out_the_epoch_that_warms_up():
    trainer = Trainer(MODEL, CONFIG, 0, tiny())
    for seconds, mean in (([100.0], 100), ([100.0, 2.0, 4.0], 3)):
        trainer.history["seconds"] = seconds
        assert trainer.images_per_second == pytest.approx(96 / mean)


@pytest.fixture
def seen(monkeypatch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The batches that trainers are given; they learn nothing from them."""
    batches, loss = [], torch.zeros(())
    step = partialmethod(lambda _, *batch: batches.append(batch) or loss)
    monkeypatch.setattr(Trainer, "plain_step", step)
    return batches


def test_an_epoch_sees_every_image_once_in_an_order_of_its_own_and_the_seeds(seen):
    data, heads = tiny(), []
    for seed in (0, 1, 0):
        heads.append(fitted(MODEL, CONFIG, seed, data).model.head.weight)
    assert torch.equal(heads[0], heads[2]) and not torch.equal(heads[0], heads[1])
    images = {x.numpy().tobytes(): i for i, x in enumerate(normalise(data.train.images))}
    orders = []
    for epoch in range(9):
        x, y = (torch.cat(part) for part in zip(*seen[3 * epoch : 3 * epoch + 3]))
        orders.append([images[image.numpy().tobytes()] for image in x])
        assert sorted(orders[-1]) == list(range(96))
        assert torch.equal(y, F.one_hot(data.train.labels[orders[-1]], 10).float())
    assert orders[:3] == orders[6:] and len(set(map(tuple, orders))) == 6


def test_a_last_short_batch_is_left_out_but_a_small_set_is_trained_on():
    assert Trainer(MODEL, CONFIG, 0, tiny(95)).steps == 2
    trainer = fitted(MODEL, CONFIG, 0, tiny(20))
    assert trainer.steps == 1 and math.isfinite(trainer.history["train_loss"][-1])


def test_the_last_epochs_are_not_mixed(seen):
    fitted(MODEL, replace(CONFIG, augment="cutmix(1)", unmixed_epochs=1), 0, tiny())
    assert [bool((y.amax(1) < 1).any()) for _, y in seen] == [True] * 6 + [False] * 3


def test_the_gradient_is_clipped_and_the_loss_smoothed(monkeypatch):
    data = tiny()
    trainer = Trainer(MODEL, replace(CONFIG, clip_norm=0.01, label_smoothing=0.3), 0, data)
    trainer.optimizers = []  # so that the gradient stays
    monkeypatch.setattr(train, "autocast", lambda device: nullcontext())
    x, y = normalise(data.train.images[:32]), F.one_hot(data.train.labels[:32], 10).float()
    loss = trainer.plain_step(x, y)
    gradient = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
    assert gradient.norm().item() == pytest.approx(0.01, rel=1e-3)
    logs = trainer.model(x).log_softmax(-1)
    expected = -((0.7 * y + 0.3 / 10) * logs).sum(-1).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("batch_size", (7, 1000))
def test_prediction_by_batches_in_fp32(batch_size, monkeypatch):
    torch.manual_seed(0)
    model, data = VisionTransformer(replace(MODEL, drop_path=0.5)), tiny(40)
    monkeypatch.setattr(train, "autocast", lambda device: nullcontext())
    logits = predict(model.train(), data.val.images, batch_size)
    assert not model.training and not logits.requires_grad and logits.dtype == torch.float32
    torch.testing.assert_close(logits, model(normalise(data.val.images)), rtol=1e-4, atol=1e-5)
    picked = logits.log_softmax(1)[torch.arange(40), data.val.labels]
    right = (logits.argmax(1) == data.val.labels).sum()
    expected = -picked.mean().item(), 100 * right.item() / 40
    assert evaluate(model, data.val) == pytest.approx(expected, rel=1e-5)


WRONG = dict(epochs=(0, 2.5, 3), batch_size=(0,), warmup_epochs=(-1,), unmixed_epochs=(51,))
WRONG |= dict(learning_rate=(math.nan, -1.0), weight_decay=(math.inf,), label_smoothing=(1.0,))
WRONG |= dict(clip_norm=(0,), augment=("crop+blur",), optimizer=("sgd",))


@pytest.mark.parametrize("name, value", [(n, v) for n, values in WRONG.items() for v in values])
def test_impossible_recipes_are_errors(name, value):
    with pytest.raises(ValueError, match=f"{name}.*{re.escape(str(value))}"):
        TrainConfig(**{name: value})


def test_every_model_of_a_process_is_compiled(monkeypatch):
    """A worker trains many; torch counts the graphs of one function over all of them."""
    graphs = CompileCounter()
    counted = partialmethod(torch.nn.Module.compile, backend=graphs)
    monkeypatch.setattr(torch.nn.Module, "compile", counted)
    monkeypatch.setattr(train, "should_compile", lambda *_: True)
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 1)
    for width in (8, 10):
        graphs.clear()
        fitted(replace(MODEL, embed_dim=width), ONCE, 0, tiny(32))
        assert graphs.frame_count, width
    torch.compiler.reset()


def test_a_run_that_diverges_says_so_and_stops():
    with pytest.raises(train.Diverged, match="the loss is not finite in epoch 1"):
        fitted(MODEL, replace(CONFIG, learning_rate=1e30), 0, tiny())


@pytest.mark.parametrize("when", ("at its first use", "at once"))
def test_a_broken_compiler_is_a_warning(when, monkeypatch):
    """A new Python with an older torch refuses at once; a lacking linker shows later."""
    fail = Mock(side_effect=RuntimeError("g++: fatal error\nmore of it"))

    def later(layer, **options):
        layer._compiled_call_impl = fail

    with monkeypatch.context() as patch:
        patch.setattr(train, "should_compile", lambda device, steps: True)
        patch.setattr(torch.nn.Module, "compile", fail if when == "at once" else later)
        with pytest.warns(UserWarning, match="without torch.compile: g\\+\\+: fatal error$"):
            compiled = fitted(MODEL, ONCE, 0, tiny())
    assert_same(compiled, fitted(MODEL, ONCE, 0, tiny()))


def test_another_default_type_is_refused(monkeypatch):
    """Its numbers would be stored as the same run."""
    monkeypatch.setattr(torch, "get_default_dtype", lambda: torch.float64)
    with pytest.raises(ValueError, match="float32, got torch.float64"):
        Trainer(MODEL, CONFIG, 0, tiny())


def test_pixels_get_a_gradient_after_a_prediction(uninterrupted):
    """Saliency, the next thing that one tries; the constants of normalise are cached."""
    data._moments.cache_clear()
    pixels = tiny(2).val.images.float().requires_grad_()
    with torch.inference_mode():
        predict(uninterrupted.model, tiny(2).val.images)
    uninterrupted.model(normalise(pixels)).sum().backward()
    assert pixels.grad.abs().sum() > 0


def test_the_graph_is_made_on_the_device_of_its_batch(monkeypatch):
    """Of the second GPU, say. No GPU is here: the device that torch is told to use is noted."""
    trainer, x = Trainer(MODEL, CONFIG, 0, tiny()), torch.zeros(2, 3, 32, 32)
    cuda = MagicMock(Stream=Mock(side_effect=RuntimeError("none")))
    monkeypatch.setattr(torch, "cuda", cuda)
    with pytest.warns(UserWarning, match="without a CUDA graph: none"):
        step = capture.captured(trainer.plain_step, trainer.model, trainer.optimizers, x, x)
    assert step == trainer.plain_step
    cuda.device.assert_called_once_with(x.device)
    cuda.set_rng_state.assert_called_once_with(cuda.get_rng_state())
