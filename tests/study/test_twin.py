# LLM-assisted: prompts P4, see report.md
"""The loss is CLIP's, training learns and repeats, the stored twin is the trained one."""

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet50

from cvassign.clip import imagenet, zero_shot
from cvassign.study import sentences, twin, twin_data

torch.set_num_threads(1)


def test_loss_is_clips_when_all_differ():
    torch.manual_seed(0)
    a, b = (F.normalize(torch.randn(6, 8), dim=-1) for _ in range(2))
    ours = twin.contrastive_loss(a, b, torch.arange(6), torch.tensor(20.0))
    logits, right = 20 * a @ b.T, torch.arange(6)
    expected = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
    assert torch.allclose(ours, expected)


def test_loss_does_not_push_equal_things_apart():
    image = F.normalize(torch.eye(3)[[0, 0, 1]], dim=-1)
    labels = torch.tensor([4, 4, 7])
    same = twin.contrastive_loss(image, image, labels, torch.tensor(50.0))
    assert same == pytest.approx(torch.tensor(2.0).log().item() * 2 / 3, abs=1e-5)  # two are right
    apart = twin.contrastive_loss(image, image, torch.arange(3), torch.tensor(50.0))
    wrong = twin.contrastive_loss(image, image.roll(1, 0), labels, torch.tensor(50.0))
    assert torch.allclose(apart, same, atol=1e-5) and wrong > 5


@pytest.fixture(scope="module")
def toy():
    """Ten classes: features around a centre each, three sentences around another centre each."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand(10, 64, generator=generator)
    labels = torch.arange(10).repeat(20)
    features = centres[labels] + 0.2 * torch.rand(200, 64, generator=generator)
    texts = torch.randn(10, 1, 16, generator=generator) + 0.1 * torch.randn(10, 3, 16, generator=generator)
    return twin.Pairs(features, labels, F.normalize(texts, dim=-1))


def accuracy(head, pairs):
    with torch.inference_mode():
        z = head(pairs.features) @ F.normalize(pairs.sentences.mean(1), dim=-1).T
    return (z.argmax(-1) == pairs.text).double().mean().item()


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_training_learns_and_repeats(toy, kind):
    config = twin.TwinConfig(head=kind, hidden=32, batch_size=32, max_epochs=20, lr=1e-2)
    head, history = twin.train(toy, config, 0, lambda h: accuracy(h, toy))
    assert accuracy(head, toy) > 0.95 and history["loss"][-1] < history["loss"][0]
    assert max(history["score"]) == history["score"][history["best_epoch"]]
    torch.manual_seed(99)  # the world's random numbers play no part
    again, _ = twin.train(toy, config, 0, lambda h: accuracy(h, toy))
    other, _ = twin.train(toy, config, 1, lambda h: accuracy(h, toy))
    same = [torch.equal(a, b) for a, b in zip(head.parameters(), again.parameters())]
    assert all(same)
    assert not torch.equal(next(p for p in head.parameters() if p.ndim == 2),
                           next(p for p in other.parameters() if p.ndim == 2))  # fmt: skip


def test_early_stopping_keeps_the_best(toy):
    scores = iter([0.1, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0, 0.0])
    states = []

    def score(head):
        states.append([p.detach().clone() for p in head.parameters()])
        return next(scores)

    config = twin.TwinConfig(head="mlp", hidden=8, batch_size=64, max_epochs=8, patience=3)
    head, history = twin.train(toy, config, 0, score)
    assert len(history["score"]) == 5 and history["best_epoch"] == 1
    assert all(torch.equal(a, b) for a, b in zip(head.parameters(), states[1]))


def test_a_score_that_is_no_number_is_named(toy):
    config = twin.TwinConfig(head="mlp", hidden=8, batch_size=64, max_epochs=2)
    with pytest.raises(ValueError, match="expected a finite score, got nan"):
        twin.train(toy, config, 0, lambda head: float("nan"))


def test_untrained_head_says_what_the_classifier_says():
    torch.manual_seed(0)
    fc, features = nn.Linear(64, 20), 3 * torch.rand(50, 64)
    classes = F.normalize(torch.randn(20, 32), dim=-1)  # more room than classes: nothing is lost
    words = twin.put_into_words(classes, ridge=1e-6)
    p = fc(features).softmax(-1)
    again = p @ words @ classes.T
    again, expected = (z - z.mean(1, keepdim=True) for z in (again, p))
    assert torch.allclose(again, expected, atol=1e-3)
    head = twin.Head(twin.TwinConfig(head="mlp", hidden=8), 64, 32, (fc, words)).eval()
    with torch.inference_mode():
        assert torch.equal((head(features) @ classes.T).argmax(-1), p.argmax(-1))
    assert not any("fixed" in k for k in head.trained())
    assert not any(p.requires_grad for p in head.fixed.parameters())
    large = twin.put_into_words(classes, ridge=1e6)  # the class vectors themselves, centred
    centred = classes - classes.mean(0)
    assert torch.allclose(F.normalize(large, dim=-1), F.normalize(centred, dim=-1), atol=1e-4)


@pytest.fixture(scope="module")
def trunk():
    torch.manual_seed(0)
    transform = imagenet.preprocessing((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    return imagenet.Classifier("some ResNet-50", resnet50().eval(), transform)


def test_stored_twin_is_the_trained_one(trunk, tmp_path, monkeypatch):
    torch.manual_seed(1)
    config = twin.TwinConfig(head="mlp", hidden=16)
    classes = {"seven": F.normalize(torch.randn(1000, 384), dim=-1)}
    words = twin.put_into_words(classes["seven"], config.ridge)
    head = twin.Head(config, start=(trunk.model.fc, words)).eval()
    nn.init.normal_(head.project[-1].weight, std=0.1)  # as if trained
    with pytest.raises(FileNotFoundError, match="python -m cvassign.study.twin_study"):
        twin.load(trunk, tmp_path)
    known = {"a bird": F.normalize(torch.randn(384), dim=0)}
    twin.save(head, config, 3, classes, trunk.name, known, tmp_path)
    loaded = twin.load(trunk, tmp_path)
    picture = Image.effect_noise((260, 300), 80).convert("RGB")
    with torch.inference_mode():
        features = twin_data.Features(trunk, False)
        expected = head(features([picture]))
    assert torch.allclose(loaded.encode_image([picture]), expected, atol=2e-3)  # half precision
    assert loaded.logit_scale == pytest.approx(head.scale.item(), rel=1e-3)
    cached = twin.load(trunk, tmp_path, features)
    assert torch.allclose(cached.encode_image([picture]), loaded.encode_image([picture]), atol=1e-4)
    made = loaded.zero_shot("seven")  # no sentence encoder is asked
    cosine = loaded.encode_image([picture]) @ classes["seven"].T
    assert isinstance(made, zero_shot.ZeroShot)
    assert torch.allclose(made.logits([picture]), loaded.logit_scale * cosine, atol=0.05)
    half = loaded.to("bf16").zero_shot("seven").logits([picture])
    assert torch.allclose(half, made.logits([picture]), atol=0.5)
    assert torch.allclose(loaded.encode_text(["a bird"] * 2), torch.stack([known["a bird"]] * 2), atol=1e-3)
    monkeypatch.setattr(sentences, "minilm", lambda: lambda texts: torch.eye(len(texts), 384))
    both = loaded.encode_text(["new", "a bird", "newer"])  # what is stored is not encoded again
    assert torch.equal(both[[0, 2]], torch.eye(2, 384)) and torch.equal(both[1], loaded.known["a bird"])
    assert twin.own_trunk(trunk, tmp_path) is trunk
    other = imagenet.Classifier("another", trunk.model, trunk.preprocess)
    with pytest.raises(ValueError, match="belongs to some ResNet-50, the network here is another"):
        twin.load(other, tmp_path)
    with pytest.raises(ValueError, match="templates must be one of seven, got 'nine'"):
        loaded.zero_shot("nine")


@pytest.fixture
def saved(trunk, tmp_path):
    """A folder with an untrained twin of `trunk`."""
    config = twin.TwinConfig(head="mlp", hidden=16)
    classes = {"seven": F.normalize(torch.randn(1000, 384), dim=-1)}
    head = twin.Head(config, start=(trunk.model.fc, classes["seven"]))
    twin.save(head, config, 0, classes, trunk.name, {"a bird": classes["seven"][0]}, tmp_path)
    return tmp_path


@pytest.mark.parametrize("change, words", (
    (lambda state: {k: v for k, v in state.items() if k != "project.3.weight"},
     r"missing: \['project.3.weight'\], unexpected: \[\]"),
    (lambda state: state | {"project.9.bias": torch.zeros(3)},
     r"missing: \[\], unexpected: \['project.9.bias'\]"),
), ids=("missing", "more"))  # fmt: skip
def test_a_head_of_other_tensors_is_refused(trunk, saved, change, words):
    twin.load(trunk, saved)
    made, state = twin.about(saved), load_file(saved / twin.HEAD)
    save_file(change(state), saved / twin.HEAD, made)
    with pytest.raises(ValueError, match=words):
        twin.load(trunk, saved)


def test_a_head_of_a_third_trunk_is_refused(trunk, saved, monkeypatch):
    monkeypatch.setattr(twin.assets, "fetch", lambda name: name)
    monkeypatch.setattr(twin.imagenet, "from_keras", lambda path: trunk)
    other = imagenet.Classifier("another", trunk.model, trunk.preprocess)
    assert twin.own_trunk(other, saved) is trunk
    third = imagenet.Classifier("a third", trunk.model, trunk.preprocess)
    monkeypatch.setattr(twin.imagenet, "from_keras", lambda path: third)
    with pytest.raises(ValueError, match="to some ResNet-50: .*, got another and a third"):
        twin.own_trunk(other, saved)


def test_unknown_head_is_refused():
    with pytest.raises(ValueError, match="mlp or linear, got 'cnn'"):
        twin.TwinConfig(head="cnn")
