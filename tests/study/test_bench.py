# LLM-assisted: prompts P6, P15, see report.md
"""What is timed is what is named: the loops train the models they say, ratios are of one round."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from torchvision import transforms

from cvassign.data import MEAN, STD, load_generated
from cvassign.study import bench, usual_loop
from cvassign.vit import ViTConfig

TINY = ViTConfig(embed_dim=24, depth=2, num_heads=4)


def test_candidates_take_turns_to_and_fro():
    calls = []
    candidates = {name: lambda name=name: calls.append(name) or len(calls) for name in "abc"}
    seconds = bench.alternate(candidates, rounds=3)
    assert "".join(calls) == "abc" + "abc" + "cba" + "abc"  # the first round does not count
    assert seconds == {"a": [4, 9, 10], "b": [5, 8, 11], "c": [6, 7, 12]}


def test_the_usual_loop_sees_torchvisions_pictures_and_learns():
    torch.manual_seed(0)
    labels = torch.arange(64) % 10  # the higher the brighter
    images = (25 * labels[:, None, None, None] + torch.randint(30, (64, 3, 32, 32))).byte()
    data = bench.timm_shape(TINY), images, labels, (MEAN, STD)
    training = usual_loop.steps(*data, batch_size=32, device="cpu", workers=0)
    losses = [next(training) for _ in range(25)]
    assert losses[-1] < losses[0] - 0.2
    dataset = training.gi_frame.f_locals["dataset"]
    dataset.transform = transforms.Compose(dataset.transform.transforms[2:])  # without the random
    image, label = dataset[5]
    expected = (images[5].permute(1, 2, 0).numpy() / 255 - MEAN) / STD
    np.testing.assert_allclose(image.permute(1, 2, 0), expected, atol=1e-5)
    assert label == labels[5]


def test_the_usual_loop_runs_by_itself_as_its_user_would(monkeypatch, tmp_path):
    program = tmp_path / "usual_loop.py"  # a stand-in that tells its environment
    spins = b"float(__import__('os').environ.get('GOMP_SPINCOUNT', '0.5'))"
    program.write_bytes(b"for n in open(0): print(float(n) + %b, flush=True)" % spins)
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "bench.py"))
    monkeypatch.setenv("GOMP_SPINCOUNT", "77")  # ours, not the user's
    task = TINY, 8, load_generated().train, torch.device("cpu"), 0
    with bench.usual_loop(*task) as seconds:
        assert [seconds(2), seconds(3)] == [2.5, 3.5]
    program.write_bytes(b"raise SystemExit(1)")  # one that fails is told
    with bench.usual_loop(*task) as seconds:
        with pytest.raises(RuntimeError, match="the usual loop ended with exit code 1"):
            seconds(1)


def test_the_command_measures_everything(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "bench", partial(bench.bench, quick=True))
    bench.main(["--device", "cpu", "--out", str(tmp_path)])
    (file,) = tmp_path.iterdir()
    found = json.loads(file.read_bytes())
    loops = found["training"]
    rounds = {name: np.array(of["rounds"]) for name, of in loops["images_per_second"].items()}
    for of, slow, fast in (
        (loops["ours_to_usual"], bench.USUAL, bench.OURS),
        (found["diff_to_vit"], bench.OURS_DIFF, bench.OURS_MUON),
    ):
        assert of["rounds"] == pytest.approx(rounds[fast] / rounds[slow], rel=1e-4)
        spread = [f(of["rounds"]) for f in (np.median, min, max)]
        assert [of["median"], of["min"], of["max"]] == pytest.approx(spread, rel=1e-4)
    assert set(found["attention"]) == {"17", "65", "257"}
    assert f"{loops['ours_to_usual']['median']:.2f} (" in capsys.readouterr().out
