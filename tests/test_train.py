# LLM-assisted: prompts P1, P2, P5, P15, see report.md
"""The trainer learns, repeats itself, survives kill -9, and does what its configuration says."""

import math
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from cvassign import capture, data, train
from cvassign.data import Dataset, Split, load_generated, normalise
from cvassign.optim import lr_factor
from cvassign.train import HISTORY, TimeUp, TrainConfig, Trainer, evaluate, non_default, predict
from cvassign.vit import VisionTransformer, ViTConfig

ROOT = Path(__file__).resolve().parents[1]
MODEL = ViTConfig(embed_dim=16, depth=2, num_heads=2, mlp_ratio=2.0, patch_size=8)
CONFIG = TrainConfig(epochs=3, batch_size=32, warmup_epochs=1, augment="none")
# Everything that draws random numbers or keeps a state between steps.
AUGMENT = "crop+flip+randaugment(2,9)+cutmix"
ALL = replace(CONFIG, epochs=6, optimizer="muon", augment=AUGMENT, unmixed_epochs=2)
ALL_MODEL = replace(MODEL, attention="diff", drop_path=0.2)


def tiny(n: int = 96) -> Dataset:
    data = load_generated()
    cut = [Split(s.images[:n], s.labels[:n]) for s in (data.train, data.val)]
    return Dataset("tiny", *cut, test=None)


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    found = {f"model.{k}": v for k, v in trainer.model.state_dict().items()}
    for i, optimizer in enumerate(trainer.optimizers):
        for j, state in optimizer.state_dict()["state"].items():
            found |= {f"optimizer {i}.{j}.{k}": v for k, v in state.items()}
    return {k: v.clone() for k, v in found.items()}


def assert_same(first: Trainer, second: Trainer) -> None:
    """Bit for bit; of the history all but the seconds."""
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys()
    assert not [k for k in a if not torch.equal(a[k], b[k])]
    for key in first.history.keys() - {"seconds"}:
        assert first.history[key] == second.history[key], key


def fitted(*args, **options) -> Trainer:
    trainer = Trainer(*args, **options)
    trainer.fit(progress=False)
    return trainer


@pytest.fixture(scope="module")
def uninterrupted() -> Trainer:
    return fitted(ALL_MODEL, ALL, 1, tiny())


@pytest.mark.parametrize("optimizer, attention", (("adamw", "standard"), ("muon", "diff")))
def test_it_overfits_a_tiny_set(optimizer, attention):
    model = replace(MODEL, embed_dim=32, attention=attention)
    config = replace(CONFIG, epochs=60, optimizer=optimizer, learning_rate=5e-3)
    config, data = replace(config, label_smoothing=0.0, weight_decay=0.0), tiny(64)
    trainer = fitted(model, config, 0, data)
    losses = trainer.history["train_loss"]
    assert losses[0] == pytest.approx(math.log(10), rel=0.15)  # it starts by guessing
    assert losses[-1] < 0.1
    assert evaluate(trainer.model, data.train)[1] == 100


def test_a_seed_repeats_itself_whatever_happened_before(uninterrupted):
    torch.manual_seed(99)
    torch.randn(5)
    assert_same(uninterrupted, fitted(ALL_MODEL, ALL, 1, tiny()))


# A process that trains up to a chosen moment and waits there for its end.
CHILD = """
import os, signal, sys, time
from pathlib import Path
import torch
threads, tests, checkpoint, moment = sys.argv[1:]
signal.alarm(300)  # a child that hangs fails the test, not the hour
torch.set_num_threads(int(threads))
sys.path.insert(0, tests)
import test_train as t

def wait_for_the_end():
    print("ready", flush=True)
    time.sleep(600)

real_step, real_save, steps = t.Trainer.plain_step, torch.save, []

def step(trainer, *args):
    steps.append(args)
    if moment == "in the second epoch" and len(steps) == trainer.steps + 2:
        wait_for_the_end()
    return real_step(trainer, *args)

def save(state, path):
    real_save(state, path)
    if moment == "saving the third" and len(state["history"]["train_loss"]) == 3:
        os.truncate(path, path.stat().st_size // 2)
        wait_for_the_end()

t.Trainer.plain_step, torch.save = step, save
t.fitted(t.ALL_MODEL, t.ALL, 1, t.tiny(), checkpoint=Path(checkpoint))
"""


def killed(checkpoint: Path, moment: str) -> None:
    threads, tests = str(torch.get_num_threads()), str(Path(__file__).parent)
    command = [sys.executable, "-c", CHILD, threads, tests, str(checkpoint), moment]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL


def test_a_run_killed_twice_ends_as_if_nothing_had_happened(uninterrupted, tmp_path):
    checkpoint = tmp_path / "run.pt"
    killed(checkpoint, "in the second epoch")
    assert len(torch.load(checkpoint)["history"]["train_loss"]) == 1
    killed(checkpoint, "saving the third")
    assert list(tmp_path.glob("*.tmp"))  # half of the file is there, under another name
    resumed = Trainer(ALL_MODEL, ALL, 1, tiny(), checkpoint)
    assert resumed.epoch == 2  # no more than the epoch at work was lost
    resumed.fit(progress=False)
    assert_same(uninterrupted, resumed)


def test_at_the_deadline_the_epochs_done_are_kept(uninterrupted, tmp_path, monkeypatch):
    checkpoint, clock = tmp_path / "run.pt", iter([0.0, 0.0, 0.0, 1e9])
    monkeypatch.setattr(train.time, "time", lambda: next(clock))
    with pytest.raises(TimeUp, match="3 of 6 epochs"):
        Trainer(ALL_MODEL, ALL, 1, tiny(), checkpoint).fit(False, deadline=1e6)
    assert_same(uninterrupted, fitted(ALL_MODEL, ALL, 1, tiny(), checkpoint=checkpoint))


@pytest.fixture
def on_gpu() -> Dataset:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    data = tiny(160)
    return Dataset("tiny", data.train.to("cuda"), data.val.to("cuda"), test=None)


@pytest.mark.parametrize("optimizer", ("adamw", "muon"))
def test_on_a_gpu_the_graph_is_the_plain_step(optimizer, on_gpu, monkeypatch):
    """Equal losses and weights after ten steps, as far as bf16 products in another order allow."""
    config = replace(ALL, epochs=2, optimizer=optimizer, augment="flip+cutmix", unmixed_epochs=0)
    graph = fitted(ALL_MODEL, config, 1, on_gpu)
    assert graph.step != graph.plain_step  # captured, without a warning
    monkeypatch.setattr(train, "captured", lambda step, *parts: step)
    plain = fitted(ALL_MODEL, config, 1, on_gpu)
    assert graph.history["train_loss"] == pytest.approx(plain.history["train_loss"], rel=2e-3)
    for key, value in plain.model.state_dict().items():
        torch.testing.assert_close(graph.model.state_dict()[key], value, rtol=0.02, atol=0.005)


def test_on_a_gpu_a_resumed_run_is_an_uninterrupted_one(on_gpu, tmp_path, monkeypatch):
    whole, clock = fitted(ALL_MODEL, ALL, 1, on_gpu), iter([0.0] * 3 + [1e9])
    with monkeypatch.context() as patch:
        patch.setattr(train.time, "time", lambda: next(clock))
        with pytest.raises(TimeUp):
            Trainer(ALL_MODEL, ALL, 1, on_gpu, tmp_path / "run.pt").fit(False, deadline=1e6)
    resumed = fitted(ALL_MODEL, ALL, 1, on_gpu, checkpoint=tmp_path / "run.pt")
    assert resumed.history["train_loss"] == pytest.approx(whole.history["train_loss"], rel=2e-3)
    assert resumed.history["learning_rate"] == whole.history["learning_rate"]


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("stored") / "run.pt"
    fitted(MODEL, replace(CONFIG, epochs=1), 0, tiny(), checkpoint=path)
    return path


@pytest.mark.parametrize("content", (None, b"", b"text", [1, 2], {"model": {}}, MODEL))
def test_a_damaged_or_foreign_checkpoint_is_named(content, stored, tmp_path):
    """None: half of a real one; MODEL is of a class, which weights_only refuses."""
    path, whole = tmp_path / "damaged.pt", stored.read_bytes()
    if content is None or isinstance(content, bytes):
        path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match="(?s)damaged.pt.*delete it to start anew"):
        Trainer(MODEL, replace(CONFIG, epochs=1), 0, tiny(), path)


@pytest.mark.parametrize("what", ("model", "recipe", "seed", "data", "fewer images"))
def test_a_checkpoint_of_another_run_is_named(stored, what):
    model = replace(MODEL, depth=3 if what == "model" else 2)
    config = replace(CONFIG, epochs=1, learning_rate=2e-3 if what == "recipe" else 1e-3)
    data = tiny(64 if what == "fewer images" else 96)
    data, seed = replace(data, name="other" if what == "data" else "tiny"), int(what == "seed")
    with pytest.raises(ValueError, match="run.pt belongs to another run") as error:
        Trainer(model, config, seed, data, stored)
    for part in (config, MODEL, model):
        assert repr(non_default(part)) in str(error.value)  # what it holds and what was expected
    assert f"{seed}, {data.name!r}" in str(error.value)


@pytest.mark.parametrize("attention", ("standard", "diff"))
def test_history_has_a_value_of_each_kind_for_each_epoch(attention):
    data = tiny()
    trainer = fitted(replace(MODEL, attention=attention), CONFIG, 0, data)
    history = trainer.history
    assert set(history) == {*HISTORY, *(["lambdas"] if attention == "diff" else [])}
    assert all(len(values) == 3 for values in history.values())
    rates = [1e-3 * lr_factor((e + 1) / 3, 1 / 3) for e in range(3)]
    assert history["learning_rate"] == pytest.approx(rates, rel=1e-6, abs=1e-9)
    last = history["val_loss"][-1], history["val_accuracy"][-1]
    assert last == evaluate(trainer.model, data.val)
    for parts, mean in zip(history["train_loss_tenths"], history["train_loss"]):
        assert len(parts) == trainer.steps == 3  # fewer than ten steps: one a part
        assert sum(parts) / 3 == pytest.approx(mean, rel=1e-5)
    if attention == "diff":
        assert history["lambdas"][-1] == trainer.model.lambdas()


def test_images_per_second_leaves_out_the_epoch_that_warms_up():
    trainer = Trainer(MODEL, CONFIG, 0, tiny())
    trainer.history["seconds"] = [100.0]
    assert trainer.images_per_second == pytest.approx(96 / 100)
    trainer.history["seconds"] = [100.0, 2.0, 4.0]
    assert trainer.images_per_second == pytest.approx(96 / 3)


def test_an_epoch_sees_every_image_once_in_a_new_order(monkeypatch):
    data, seen = tiny(), []
    trainer = Trainer(MODEL, CONFIG, 0, data)
    real = trainer.plain_step
    monkeypatch.setattr(trainer, "plain_step", lambda x, y: seen.append((x, y)) or real(x, y))
    trainer.fit(progress=False)
    images = normalise(data.train.images)
    everything = {x.numpy().tobytes(): y for x, y in zip(images, data.train.labels)}
    orders = []
    for epoch in range(3):
        batches = seen[3 * epoch : 3 * epoch + 3]
        keys = [image.numpy().tobytes() for x, _ in batches for image in x]
        targets = torch.cat([y for _, y in batches])
        assert sorted(keys) == sorted(everything)
        labels = torch.stack([everything[key] for key in keys])
        assert torch.equal(targets, F.one_hot(labels, 10).float())
        orders.append(keys)
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_a_last_short_batch_is_left_out_but_a_small_set_is_trained_on():
    assert Trainer(MODEL, CONFIG, 0, tiny(95)).steps == 2
    assert Trainer(MODEL, CONFIG, 0, tiny(20)).steps == 1
    trainer = fitted(MODEL, CONFIG, 0, tiny(20))
    assert math.isfinite(trainer.history["train_loss"][-1])


def test_each_seed_has_an_order_of_its_own(monkeypatch):
    seen, heads = [], []
    step = lambda _, x, y: seen.append(x.clone()) or torch.zeros(())  # noqa: E731
    monkeypatch.setattr(Trainer, "plain_step", step)
    for seed in (0, 1, 0):
        heads.append(fitted(MODEL, replace(CONFIG, epochs=1), seed, tiny()).model.head.weight)
    first, other, again = (torch.cat(part) for part in zip(*[iter(seen)] * (len(seen) // 3)))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(heads[0], heads[2]) and not torch.equal(heads[0], heads[1])
    sums = [x.flatten(1).sum(1).sort().values for x in (first, other)]
    torch.testing.assert_close(*sums)  # the same images


def test_the_last_epochs_are_not_mixed(monkeypatch):
    seen = []
    mixed = lambda y: bool((y.max(1).values < 1).any())  # noqa: E731
    step = lambda _, x, y: seen.append(mixed(y)) or torch.zeros(())  # noqa: E731
    monkeypatch.setattr(Trainer, "plain_step", step)
    fitted(MODEL, replace(CONFIG, augment="cutmix(1)", unmixed_epochs=1), 0, tiny())
    steps = len(seen) // CONFIG.epochs
    assert all(seen[:-steps]) and not any(seen[-steps:])


def test_the_gradient_is_clipped_and_the_loss_smoothed(monkeypatch):
    data = tiny()
    trainer = Trainer(MODEL, replace(CONFIG, clip_norm=0.01, label_smoothing=0.3), 0, data)
    parameters, norms = list(trainer.model.parameters()), []

    def measure():
        norms.append(math.sqrt(sum(p.grad.square().sum() for p in parameters)))

    monkeypatch.setattr(trainer.optimizers[0], "step", measure)
    monkeypatch.setattr(train, "autocast", lambda d: torch.autocast(d.type, enabled=False))
    x, y = normalise(data.train.images[:32]), F.one_hot(data.train.labels[:32], 10).float()
    loss = trainer.plain_step(x, y)
    assert norms == [pytest.approx(0.01, rel=1e-3)]
    assert all(p.grad is None for p in parameters)
    with torch.no_grad():
        logs = trainer.model(x).log_softmax(-1)
    expected = -((0.7 * y + 0.3 / 10) * logs).sum(-1).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("batch_size", (7, 1000))
def test_prediction_by_batches_in_fp32(batch_size, monkeypatch):
    torch.manual_seed(0)
    model, data = VisionTransformer(replace(MODEL, drop_path=0.5)), tiny(40)
    monkeypatch.setattr(train, "autocast", lambda d: torch.autocast(d.type, enabled=False))
    logits = predict(model.train(), data.val.images, batch_size)
    assert not model.training and not logits.requires_grad and logits.dtype == torch.float32
    torch.testing.assert_close(logits, model(normalise(data.val.images)), rtol=1e-4, atol=1e-5)
    loss, accuracy = evaluate(model, data.val)
    right = (logits.argmax(1) == data.val.labels).sum().item()
    assert accuracy == pytest.approx(100 * right / 40)
    picked = logits.log_softmax(1)[torch.arange(40), data.val.labels]
    assert loss == pytest.approx(-picked.mean().item(), rel=1e-5)


WRONG = dict(epochs=(0, 2.5, 3), batch_size=(0,), warmup_epochs=(-1,), unmixed_epochs=(51,))
WRONG |= dict(learning_rate=(math.nan, -1.0), weight_decay=(math.inf,), label_smoothing=(1.0,))
WRONG |= dict(clip_norm=(0,), augment=("crop+blur",), optimizer=("sgd",))


@pytest.mark.parametrize("name, value", [(n, v) for n, values in WRONG.items() for v in values])
def test_impossible_recipes_are_errors(name, value):
    with pytest.raises(ValueError, match=f"{name}.*{re.escape(str(value))}"):
        TrainConfig(**{name: value})


def test_every_model_of_a_process_is_compiled(monkeypatch):
    """A worker trains many; torch counts the graphs of one function over all of them."""
    graphs, real = [], torch.nn.Module.compile

    def compile_(module, **options):
        real(module, backend=lambda graph, _: graphs.append(module) or graph.forward, **options)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_)
    monkeypatch.setattr(train, "should_compile", lambda *_: True)
    config, data = replace(CONFIG, epochs=1, warmup_epochs=0), tiny(32)
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 2)
    for width in (8, 10, 12):
        graphs.clear()
        trainer = fitted(replace(MODEL, embed_dim=width), config, 0, data)
        assert set(map(id, graphs)) <= set(map(id, trainer.model.layers)) and graphs, width
    torch.compiler.reset()


def test_a_run_that_diverges_says_so_and_stops():
    with pytest.raises(train.Diverged, match="the loss is not finite in epoch 1"):
        fitted(MODEL, replace(CONFIG, learning_rate=1e30), 0, tiny())


@pytest.mark.parametrize("when", ("at its first use", "at once"))
def test_a_broken_compiler_is_a_warning(when, monkeypatch):
    """A new Python with an older torch refuses at once; a lacking linker shows later."""

    def fail(*args, **kwargs):
        raise RuntimeError("g++: fatal error\nmore of it")

    def broken(layer, **options):
        if when == "at once":
            fail()
        layer._compiled_call_impl = fail

    monkeypatch.setattr(train, "should_compile", lambda device, steps: True)
    monkeypatch.setattr(torch.nn.Module, "compile", broken)
    with pytest.warns(UserWarning, match="without torch.compile: g\\+\\+: fatal error$"):
        compiled = fitted(MODEL, CONFIG, 0, tiny())
    monkeypatch.undo()
    assert_same(compiled, fitted(MODEL, CONFIG, 0, tiny()))


def test_another_default_type_is_refused():
    """Its numbers would be stored as the same run."""
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(ValueError, match="float32, got torch.float64"):
            Trainer(MODEL, CONFIG, 0, tiny())
    finally:
        torch.set_default_dtype(torch.float32)


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
    used = []

    @contextmanager
    def note(device):
        used.append(device)
        yield

    monkeypatch.setattr(torch.cuda, "device", note)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: None)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: (_ for _ in ()).throw(RuntimeError("none")))
    trainer, x = Trainer(MODEL, CONFIG, 0, tiny()), torch.zeros(2, 3, 32, 32)
    with pytest.warns(UserWarning, match="without a CUDA graph: none"):
        step = capture.captured(trainer.plain_step, trainer.model, trainer.optimizers, x, x)
    assert step == trainer.plain_step and used == [x.device]
