# LLM-assisted: prompts P14, P15, see report.md
"""The stored comparison keeps the assignment's rule, and its numbers are what they are called."""

import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from cvassign.clip import counterfactual, gallery
from cvassign.clip.counterfactual import AS_IS, CHANGES
from cvassign.pictures import open_rgb
from cvassign.study import answers, counterfactuals, twin


def test_moved_compares_the_same_pictures_and_draws_classes():
    some = [{AS_IS: (b, 0.1), "grey": (b, 0.1), "surface": (b // 2, 0.1)} for b in (8, 40, 8, 40)]
    some[0]["blur"] = (16, 0.1)
    found = counterfactuals.moved(some, [1, 1, 2, 2])
    assert found["surface"]["top5"] == [0, 50] and found["surface"]["median"] == [24, 12]
    assert list(found["surface"]["points"].values()) == [50, 50, 50, 2, "classes"]
    assert found["surface"]["factor"] == {"mean": 0.5, "low": 0.5, "high": 0.5}
    assert found["blur"]["n"] == 1 and found["blur"]["factor"]["mean"] == pytest.approx(2)
    by_picture = counterfactuals.moved(some, range(4))["surface"]["points"]
    assert by_picture["low"] == 0 and by_picture["high"] == 100
    beyond = counterfactuals.moved(some, range(4), base="surface")["grey"]
    assert beyond["top5"] == [50, 0] and beyond["factor"]["mean"] == pytest.approx(2)


def test_stored_choice_keeps_the_rule():
    stored = json.loads(counterfactuals.OUT.read_bytes())
    pool, (network, words) = counterfactuals.candidates()
    ten = gallery.select(pool, words, network)
    assert len(ten) == 10 and len({loss.branch for _, loss in ten.values()}) >= 6
    assert len({p.style for wins, _ in ten.values() for p in wins}) > 2
    models, verdicts = [answers.load(model) for model in answers.MODELS], Counter()
    for index, (wins, loss) in ten.items():
        three = [*wins, loss]
        assert {p.index for p in three} == {index} and len({p.path for p in wins}) == 2
        assert twin.held_out(three) == three and all(p.may_be_shown for p in three)
        strips = counterfactuals.strips(three, pool, stored)
        for p, strip, loser in zip(three, strips, (0, 0, 1)):
            for i, model in enumerate(models):
                named = p.class_name in [name for name, _ in model.topk([p])[0]]
                assert named == (i != loser)  # by the class's own name alone
                assert strip[AS_IS][1][model.name] == model.of([p]).ranks.item()
            row = counterfactual.row(p, strip, models[loser].name)
            assert row["class"] == p.class_name and row["rank"] > 5
            verdicts[loser, row["what follows"]] += 1
    assert verdicts[0, "tested"] == 2 and verdicts[0, "a photo or a piece"] == 14
    assert set(stored["moved"]["drawings"][models[0].name]) == set(CHANGES)


def test_study_changes_pictures_and_tells_two_models_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "BUNDLED", tmp_path)

    def drawn(name: str, colour: str, size: int, kind: str, style: str) -> gallery.Picture:
        image, path = Image.new("RGB", (80, 80), "white"), tmp_path / f"{name}.png"
        ImageDraw.Draw(image).rectangle((40 - size, 40 - size, 40 + size, 40 + size), colour)
        image.save(path)
        return gallery.Picture(path, 1, (1,), style, kind, "tuxpaint", "CC0", "a", True)

    def model(name: str, own) -> SimpleNamespace:
        def logits(images):
            values = [own(np.asarray(open_rgb(i), dtype=float)) for i in images]
            return torch.tensor([[0, value, *[0] * 10] for value in values]).float()

        return SimpleNamespace(name=name, logits=logits)

    colour = model("colour", lambda x: x[len(x) // 2, x.shape[1] // 2] @ (1, 0, -1) - 1)
    size = model("size", lambda x: (x.mean(-1) < 200).mean() - 0.3)
    pictures = [drawn("a", "blue", 25, "rendition", "clipart")]
    pictures.append(drawn("b", "red", 12, "photo", "photo_cutout"))
    out = counterfactuals.study(pictures, pictures[:1], [colour, size])
    points = [of["surface"]["points"]["mean"] for of in out["moved"]["drawings"].values()]
    assert points == [100, 0]
    assert list(out["ranks"]) == ["a.png"] and out["ranks"]["a.png"]["colour"]["surface"][0] == 1
    assert out["moved"]["cut-out photos"]["size"]["smaller"]["n"] == 1
    (strip,) = counterfactuals.strips(pictures[:1], pictures, out)
    assert strip["surface"][1] == {"colour": 1, "size": 1} and strip["surface"][0].size == (80, 80)
