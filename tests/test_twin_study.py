# LLM-assisted: prompts P4, see report.md
"""Retraining gives the stored accuracy, and the measures are right on cases counted by hand."""

import json
from pathlib import Path

import pytest
import torch

from cvassign import gallery, twin, twin_study

torch.set_num_threads(1)


def picture(index: int, kind: str = "photo") -> gallery.Picture:
    return gallery.Picture(Path("x.png"), index, (index,), kind, kind, "s", "CC0", "a", True)


def test_retraining_gives_the_stored_accuracy():
    stored = json.loads((twin.FOLDER / "slice.json").read_text())
    assert twin_study.train_slice() == pytest.approx(stored["accuracy"], abs=0.01)
    assert twin_study.train_slice(shuffled=True) < stored["accuracy"] - 0.3


def test_study_is_complete_and_sources_are_apart():
    study = json.loads((twin.FOLDER / "twin.json").read_text())
    assert set(study["variants"]) == set(twin_study.VARIANTS)
    for v in study["variants"].values():
        values = torch.tensor(v["top5_rendition"]["values"])
        assert v["top5_rendition"]["mean"] == pytest.approx(values.mean().item(), abs=1e-4)
        assert len(values) == 3 and 0 < v["top5_photo"]["mean"] <= 1
    parts = {}
    for row in study["data_card"]:
        parts.setdefault(row["source"].split(",")[0], set()).add(row["part"])
        assert row["licence"] and row["photos"] + row["renditions"] + row["captioned"] > 0
    assert all(len(p) == 1 for p in parts.values())
    table = twin_study.data_card_table(study)
    assert table.count("\n") == 2 + len(study["data_card"])


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
