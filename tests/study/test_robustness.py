# LLM-assisted: prompts P2, P6, P13, P15, see report.md
"""Corruptions against their definitions; the study against accuracies counted one by one."""

import json

import numpy as np
import pytest
import torch

from cvassign.data import load_generated
from cvassign.experiments import experiment_runs
from cvassign.plots import robustness_difference
from cvassign.results import load_model, save_weights, weights_path
from cvassign.stats import paired_bootstrap
from cvassign.study import robustness
from cvassign.study.robustness import CORRUPTIONS, SEVERITIES, corrupt
from cvassign.train import predict
from cvassign.vit import VisionTransformer


@pytest.fixture(scope="module")
def images():
    """Smooth pictures, as photos are, with one sharp edge for blur and JPEG."""
    small = torch.rand(40, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    large = torch.nn.functional.interpolate(small, (32, 32), mode="bicubic").clamp(0, 1)
    large[..., 16:] = 1 - large[..., 16:]
    return (255 * large).to(torch.uint8)


def grey(level, n=200):
    return torch.full((n, 3, 32, 32), level, dtype=torch.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_grows_with_its_severity_and_follows_its_seed(name, images):
    before, state = images.clone(), torch.get_rng_state()
    damaged = [corrupt(images, name, s, seed=1) for s in SEVERITIES]
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(images, before)
    assert {(d.dtype, d.shape) for d in damaged} == {(torch.uint8, images.shape)}
    far = [(d / 255 - images / 255).square().mean().sqrt().item() for d in damaged]
    assert 0.002 < far[0] and far == sorted(set(far)), far
    random = "noise" in name or name == "fog"
    for seed, same in ((1, True), (2, not random)):
        assert torch.equal(damaged[2], corrupt(images, name, 3, seed)) == same


def test_noise_is_as_strong_as_it_says():
    for name, severity, level, deviation in (
        ("Gaussian noise", 3, 128, 0.08),
        # λ photons have a standard deviation of √λ, so brightness x has √(x / photons).
        ("shot noise", 5, 50, np.sqrt(50 / 255 / 50)),
        ("shot noise", 5, 150, np.sqrt(150 / 255 / 50)),
    ):
        noisy = corrupt(grey(level), name, severity) / 255
        assert noisy.std().item() == pytest.approx(deviation, rel=0.02)
        assert noisy.mean().item() == pytest.approx(level / 255, abs=2e-3)
    noisy = corrupt(grey(128), "impulse noise", 5)
    for value, share in ((0, 0.035), (255, 0.035), (128, 0.93)):
        assert (noisy == value).float().mean().item() == pytest.approx(share, rel=0.03)


def test_blur_spreads_a_point_by_sigma_and_contrast_keeps_a_share_of_the_distance_to_the_mean():
    point = grey(0, 1)
    point[..., 16, 16] = 255
    weights = corrupt(point, "blur", 5)[0, 0].double()
    variance = (weights.sum(0) * (torch.arange(32) - 16) ** 2).sum() / weights.sum()
    assert variance.sqrt().item() == pytest.approx(1.0, rel=0.05)
    half = grey(50, 1)
    half[..., :16] = 150
    assert corrupt(half, "contrast", 2).unique().tolist() == pytest.approx([75, 125], abs=1)


def test_fog_is_grey_uneven_and_takes_contrast(images):
    cloud = corrupt(grey(100), "fog", 5).float()
    assert (cloud.amax((1, 2, 3)) == 100).all() and cloud.std((1, 2, 3)).amin() > 2  # uneven
    assert cloud.diff().abs().mean() < 0.15 * cloud.std()  # coarse grids weigh most
    assert torch.equal(cloud[:, 0], cloud[:, 1]) and not torch.equal(cloud[0], cloud[1])
    foggy = (corrupt(images, "fog", 2), corrupt(images, "fog", 1), images)
    edge = [f[..., 15:17].float().diff().abs().mean() for f in foggy]
    assert edge[0] < edge[1] < edge[2]


def test_jpeg_rounds_fine_and_weak_patterns_away():
    # The finest pattern of an 8 x 8 block: JPEG's table rounds it in steps of about a hundred at
    # quality 50, so a weak one is gone and a strong one stays. Each image has its own.
    board = torch.tensor([[1, -1], [-1, 1]]).repeat(16, 16)
    made = torch.stack([(128 + a * board).expand(3, 32, 32) for a in (4, 110)]).to(torch.uint8)
    weak, strong = corrupt(made, "JPEG", 4).float()
    assert weak.std() == 0 and abs(weak.mean() - 128) <= 1 and strong.std() > 90


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="got 'blur' and 0"):
        corrupt(grey(1), "blur", severity=0)
    with pytest.raises(ValueError, match="expected .*uint8, got torch.float32"):
        corrupt(grey(1) / 255, "blur", severity=1)


RUNS = [experiment_runs("best", model, "smoke")[0] for model in ("vit", "diff")]
REFERENCE = [experiment_runs("reference", run.name.split("-")[0], "smoke")[0] for run in RUNS]
CELLS = experiment_runs("factorial", "vit", "smoke")
NORM = next(run for run in CELLS if run.model.attention == "standard_norm")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    torch.manual_seed(0)
    for run in RUNS + REFERENCE + [NORM]:
        made = VisionTransformer(run.model)
        torch.nn.init.normal_(made.head.weight)  # as made, it would answer one class
        save_weights(made, weights_path(run, results))
    return results


@pytest.mark.filterwarnings("ignore:Mismatch dtype")  # torch's RMSNorm under autocast
def test_the_study_counts_what_the_models_get_right(folder, capsys):
    command = ["--preset", "smoke", "--images", "24", "--results", str(folder), "--device", "cpu"]
    robustness.main(command)
    assert "24 images" in capsys.readouterr().out
    found = json.loads((folder / "study" / "robustness.json").read_bytes())
    parts = {k: [row["names"] for row in found[k]["runs"]] for k in robustness.COMPARED}
    one, two, norm = ([f"{run.name}-s{run.seed}"] for run in (*REFERENCE, NORM))
    assert parts == {"reference": [one, two], "norm": [one, norm], "pairs": [norm, two]}
    assert found["reference"]["differences"].keys() == found["differences"].keys()
    both = robustness.study([REFERENCE, [NORM]], folder, 24, "cpu")["runs"]
    for group, of in ((both[0], found["reference"]["runs"]), (both[1], found["norm"]["runs"][1:])):
        assert group["accuracy"]["fog"] == pytest.approx(
            np.mean([row["accuracy"]["fog"] for row in of], axis=0)
        )
    test, models = load_generated().test, [load_model(run, folder) for run in RUNS]

    def right(*damage) -> np.ndarray:  # (2, 24)
        x = corrupt(test.images[:24], *damage) if damage else test.images[:24]
        return np.stack([predict(m, x).argmax(1) == test.labels[:24] for m in models])

    clean = right()
    damaged = np.array([[right(name, s) for s in SEVERITIES] for name in CORRUPTIONS])
    for i, row in enumerate(found["runs"]):
        accuracy = np.array([*row["accuracy"].values()])  # (7, 5)
        assert accuracy == pytest.approx(100 * damaged[:, :, i].mean(-1), rel=1e-5)
        assert row["clean"] == pytest.approx(100 * clean[i].mean(), rel=1e-5)
    share = damaged.mean(1)  # (7, 2, 24): of the severities
    for key, of in {"clean": clean, "fog": share[5], "all corruptions": share.mean(0)}.items():
        assert found["differences"][key] == pytest.approx(vars(paired_bootstrap(*of)), abs=1e-4)
    weights_path(NORM, folder).unlink()  # what is stored of it stays
    robustness.main(command)
    assert json.loads((folder / "study" / "robustness.json").read_bytes()) == found
    curves, (vit, diff) = robustness.curves(found), 100 * damaged[3].mean(-1).T
    assert curves["blur"][:, 0] == pytest.approx(diff - vit, abs=1e-3)
    noises, rest = robustness_difference(curves, range(6)).axes
    assert [c.get_label() for c in rest.containers[:2]] == ["clean images", "blur"]
    line, _, (bars,) = rest.containers[1]
    ends = [segment[:, 1] for segment in bars.get_segments()]
    np.testing.assert_allclose(np.c_[line.get_ydata(), ends], curves["blur"])
    beside = {c[0].get_xdata()[0] for c in rest.containers[1:]}
    assert len(noises.containers) == 4 and len(beside) == 4


def test_the_command_says_what_is_missing(folder, tmp_path, capsys):
    for path in (weights_path(run, tmp_path) for run in RUNS):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"broken")
    for code, preset, images, results, message in (
        (1, "cpu", "9", tmp_path, "experiments run --preset cpu"),
        (2, "smoke", "0", folder, "between 1 and 200"),
        (2, "smoke", "9", tmp_path, "no usable weights"),
    ):
        command = ["--preset", preset, "--images", images, "--results", str(results)]
        with pytest.raises(SystemExit, match=str(code)):
            robustness.main(command)
        assert message in capsys.readouterr().err
