# LLM-assisted: prompts P4, see report.md
"""Retraining gives the stored accuracy, and the measures are right on cases counted by hand."""

import json
from collections import OrderedDict
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from cvassign.clip import gallery, imagenet
from cvassign.study import twin, twin_data, twin_study

torch.set_num_threads(1)


def picture(index: int, kind: str = "photo") -> gallery.Picture:
    return gallery.Picture(Path("x.png"), index, (index,), kind, kind, "s", "CC0", "a", True)


def test_retraining_gives_the_stored_accuracy():
    stored = json.loads((twin.FOLDER / "slice.json").read_text())
    n = len(load_file(twin.FOLDER / twin_study.SLICE)["test_labels"])
    # another processor rounds otherwise: one picture may fall to the other side
    assert twin_study.train_slice() == pytest.approx(stored["accuracy"], abs=max(0.01, 1.01 / n))
    assert twin_study.train_slice(shuffled=True) < stored["accuracy"] - 0.3


def test_stored_study_is_complete_and_sources_are_apart():
    study = json.loads((twin.FOLDER / "twin.json").read_text())
    assert set(study["variants"]) == set(twin_study.VARIANTS)
    assert study["config"] == asdict(twin_study.VARIANTS[twin_study.MAIN])
    for v in study["variants"].values():
        values = torch.tensor(v["top5_rendition"]["values"])
        assert v["top5_rendition"]["mean"] == pytest.approx(values.mean().item(), abs=1e-4)
        assert len(values) == 3 and 0 < v["top5_photo"]["mean"] <= 1
    parts = {}
    for row in study["data_card"]:
        parts.setdefault(row["source"].split(",")[0], set()).add(row["part"])
        assert row["licence"] and row["photos"] + row["renditions"] + row["captioned"] > 0
    assert all(len(p) == 1 for p in parts.values())
    trained = [s for s, p in parts.items() if p != {"test"}]
    assert trained and not [s for s in trained if any(word in s for word in gallery.SOURCES)]


def test_stored_head_is_the_measured_one():
    made, study = twin.about(), json.loads((twin.FOLDER / "twin.json").read_text())
    assert made["trunk"] == study["trunk"] and json.loads(made["config"]) == study["config"]
    size = sum((twin.FOLDER / n).stat().st_size for n in (twin.HEAD, twin.CLASSES, twin.KNOWN))
    assert size < 5_000_000


@pytest.fixture
def data():
    """Six classes in 64 features and 16 dimensions of words; a test class without training."""
    torch.manual_seed(0)
    centres = torch.rand(6, 64)

    def part(n, kinds, indices):
        pictures = [picture(i, k) for i in indices for k in kinds for _ in range(n)]
        x = torch.stack([centres[p.index] for p in pictures]) + 0.1 * torch.rand(len(pictures), 64)
        return pictures, x

    pictures, features = {}, {}
    for name, n, indices in (("train", 6, range(5)), ("validation", 2, range(5)), ("test", 2, range(6))):
        pictures[name], features[name] = part(n, ("photo", "rendition"), indices)
    classes = {t: F.normalize(torch.randn(1000, k, 16), dim=-1) for t, k in (("single", 1), ("seven", 7))}
    captions = F.normalize(torch.randn(9, 2, 16), dim=-1)
    return twin_study.Data(pictures, features, classes, captions, torch.rand(9, 64),
                           nn.Linear(64, 1000), 0, 0)  # fmt: skip


def test_pairs_are_what_the_configuration_says(data):
    def count(**changes):
        return twin_study.pairs(data, twin.TwinConfig(**changes))

    every = count(captions=True)
    assert len(every.text) == 60 + 9 and every.sentences.shape == (1009, 7, 16)
    # the first caption's row: title and caption in turn, seven of them
    assert torch.equal(every.sentences[1000], data.captions[0][torch.arange(7) % 2])
    assert len(count().text) == 60
    assert len(count(renditions=False).text) == 30
    drawn = [p for p in data.pictures["train"] if p.kind == "rendition"][:7]
    for p in drawn:
        data.pictures["train"][data.pictures["train"].index(p)] = replace(p, source="npm:@iconify/json/mdi")
    assert len(count().text) == 60 and len(count(icons=False).text) == 60 - 7
    one = count(templates="single", photos=False)
    assert len(one.text) == 30 and one.sentences.shape == (1000, 1, 16)
    without = twin_study.pairs(data, twin.TwinConfig(), {2, 3})
    assert set(without.text.tolist()) == {0, 1, 4}


def test_a_copy_is_a_near_picture_of_the_same_class():
    cos = torch.tensor([1.0, 0.96, 0.94])  # of the pictures with the first
    x = torch.stack([cos, (1 - cos**2).sqrt()], dim=1) * torch.tensor([[3.0], [1.0], [2.0]])
    near, far = twin_study.COPY < 0.96, twin_study.COPY > 0.94
    assert near and far
    assert twin_study.originals(x[:2], [picture(1), picture(1)]) == [True, False]
    assert twin_study.originals(x[:2], [picture(1), picture(2)]) == [True, True]
    # the third is near the second, but that is left out
    assert twin_study.originals(x, [picture(1)] * 3) == [True, False, True]


def test_data_card_has_one_row_for_the_icons_trained_on(data):
    def icon(prefix, licence):
        return replace(picture(0, "rendition"), source=f"npm:@iconify/json/{prefix}", licence=licence)

    data.pictures["train"][:4] = [icon("ph", "MIT"), icon("mdi", "Apache-2.0"), icon("ph", "MIT"),
                                  replace(picture(1), source="openclipart")]  # fmt: skip
    data.pictures["validation"][:2] = [icon("lucide", "ISC"), icon("whh", "OFL-1.1")]
    rows = {(r["part"], r["source"]): r for r in twin_study.data_card(data)}
    row = rows["train", "npm:@iconify/json, 2 sets"]
    assert (row["photos"], row["renditions"], row["classes"]) == (0, 3, 1)
    assert row["licence"] == "MIT, Apache-2.0"
    assert rows["validation", "npm:@iconify/json/lucide"]["licence"] == "ISC"
    assert rows["validation", "npm:@iconify/json/whh"]["renditions"] == 1
    parts = ("train", "validation", "test")
    assert sum(r["photos"] + r["renditions"] for r in rows.values()) == sum(
        len(data.pictures[p]) for p in parts
    )  # fmt: skip


def test_study_trains_every_variant(data, tmp_path, monkeypatch):
    small = {n: replace(c, hidden=8, max_epochs=2) for n, c in twin_study.VARIANTS.items()}
    monkeypatch.setattr(twin_study, "VARIANTS", small)
    monkeypatch.setattr(twin_study, "sentence_vectors", lambda t: F.normalize(torch.randn(len(t), 16), dim=-1))
    openclipart = gallery.Picture(Path("x.png"), 1, (1,), "clipart", "rendition", "openclipart", "PD", "a", True)
    data.pictures["train"][-1] = openclipart
    features = twin_data.Features(
        imagenet.Classifier("small", nn.Sequential(OrderedDict(a=nn.Flatten(), fc=data.fc)), None), False)  # fmt: skip
    out = twin_study.study(data, features, 2, tmp_path)
    assert list(out["variants"]) == list(small) and out["trunk"] == "small"
    assert {len(v["runs"]) for v in out["variants"].values()} == {2}
    assert set(out["unseen_classes"]) >= {"unseen_photo", "trained_rendition"}
    assert out["data_card"][-1]["captioned"] == 9
    stored = load_file(tmp_path / twin.HEAD)
    assert stored["project.0.weight"].dtype == torch.float16 and "log_temperature" in stored
    assert set(load_file(tmp_path / twin.KNOWN)) == set(twin.QUERIES)
    assert list(load_file(tmp_path / twin.CLASSES)) == ["seven"]
    assert json.loads((tmp_path / "slice.json").read_text())["seed"] == 0
    json.dumps(out)  # nothing but plain numbers and words


def test_calibration_by_hand():
    logits = torch.full((4, 1000), -100.0)
    logits[torch.arange(4), torch.arange(4)] = 0.0  # sure of classes 0 to 3
    c = twin_study.calibration([picture(i) for i in (0, 1, 2, 9)], logits)
    assert c["accuracy"] == 0.75 and c["confidence"] == pytest.approx(1)
    assert c["ece"] == pytest.approx(0.25) and c["bins"] == [[pytest.approx(1), 0.75, 4]]


def test_temperature_flattens_what_is_too_sure():
    torch.manual_seed(0)
    truth = torch.randint(0, 1000, (300,))
    logits = torch.zeros(300, 1000)
    logits[torch.arange(300), truth] = 7.0  # a fitting size: temperature one
    wrong = torch.rand(300) < 0.45
    logits[wrong] = logits[wrong].roll(1, dims=-1)
    pictures = [picture(int(t)) for t in truth]
    base = twin_study.temperature(pictures, logits)
    assert twin_study.temperature(pictures, 4 * logits) == pytest.approx(4 * base, rel=0.1)


def test_hit_rates_by_kind():
    logits = torch.zeros(3, 1000)
    logits[0, 1] = logits[1, 2] = logits[2, 500] = 1.0
    some = [picture(1), picture(2, "rendition"), picture(3, "rendition")]
    assert twin_study.top5_by_kind(some, logits, 1) == {"photo": 1.0, "rendition": 0.5}
