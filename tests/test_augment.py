# LLM-assisted: prompts P1, P15, see report.md
"""Every operation against torchvision's, one image at a time, and the randomness per image."""

import pytest
import torch
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from cvassign import augment
from cvassign.augment import BINS, NAMES, OPS, PAD, SIZE, build_augmentation

PIXEL_SPECS = ("crop", "flip", "jitter", "randaugment(2,9)", "crop+flip+randaugment(3,30)")
SPACE = v2.RandAugment._AUGMENTATION_SPACE


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photos(n: int) -> torch.Tensor:
    """(n, 3, 32, 32) uint8: smooth blobs and noise of differing contrast, like a photo's levels."""
    g = seeded()
    coarse = torch.rand(n, 3, 5, 5, generator=g)
    smooth = torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic", align_corners=True)
    noisy = smooth + 0.1 * torch.randn(n, 3, SIZE, SIZE, generator=g)
    contrast = torch.linspace(0.2, 1.2, n).view(n, 1, 1, 1)
    return ((noisy - 0.5) * contrast + 0.5).mul(255).clamp(0, 255).byte()


def torchvision_op(image: torch.Tensor, name: str, magnitude: float) -> torch.Tensor:
    return v2.RandAugment()._apply_image_or_video_transform(
        image, name, magnitude, interpolation=InterpolationMode.NEAREST, fill={torch.Tensor: None}
    )


def test_each_op_equals_torchvisions_in_a_batch_of_mixed_ops():
    assert set(SPACE) == set(OPS)
    cases = []  # the number of the operation, its magnitude
    for number, (name, row) in enumerate(zip(OPS, augment.magnitude_table("cpu"))):
        values = SPACE[name][0](BINS, SIZE, SIZE)
        torch.testing.assert_close(row, torch.zeros(BINS) if values is None else values.float())
        cases += [(number, sign * m) for m in row for sign in (1, -1)]
    op, magnitude = torch.tensor(cases)[torch.randperm(len(cases), generator=seeded())].T
    op, images = op.long(), photos(len(cases))
    images[::10] = 77  # one level only: nothing to stretch or equalise
    images[5::10, 0] = 0
    ours = augment.apply_op(images, op, magnitude)
    signed = torch.tensor([SPACE[name][1] for name in OPS])[op]
    each = zip(images, op.tolist(), torch.where(signed, magnitude, magnitude.abs()).tolist())
    theirs = torch.stack([torchvision_op(x, OPS[number], m) for x, number, m in each])
    error = (ours.int() - theirs.int()).abs()
    for number, name in enumerate(OPS):
        of = error[op == number]
        assert (of > 0).float().mean() < 0.01, name
        if number < 5:  # a warp copies: equal, but for pixels halfway between two others
            assert (of == 0).all(3).all(2).all(1).float().mean() > 0.6, name
        else:
            assert of.max() <= 1, name
        assert name == "Identity" or (theirs != images)[op == number].any(), name


def test_randaugment_applies_its_level_and_every_op_so_many_times():
    image = photos(8)[4:5]  # not of full range, or AutoContrast would do nothing
    images, once = image.expand(2000, -1, -1, -1), build_augmentation("randaugment(1,20)")
    out = once.pixels(images, generator := seeded())
    twice = build_augmentation("randaugment(2,20)").pixels(images, seeded())
    assert torch.equal(twice, once.pixels(out, generator))
    for name, m in zip(OPS, augment.magnitude_table("cpu")[:, 20].tolist()):
        signs = (1, -1) if SPACE[name][1] else (1,)
        expected = [torchvision_op(image[0], name, s * m) for s in signs]
        hits = [((out.int() - e.int()).abs() <= 1).float().mean((1, 2, 3)) > 0.98 for e in expected]
        for hit in hits:  # binomial: 2000 / 14 (/ 2) draws, standard deviation below 12
            assert abs(hit.sum() - 2000 / 14 / len(hits)) < 45, name


def test_jitter_is_torchvisions_in_its_order():
    images = photos(16)
    images[0] = images[0, :1]  # grey has no hue
    u = torch.rand(4, 16, generator=seeded(3)) * 2 - 1
    ours = augment.colour_jitter(images, seeded(3))
    for image, out, (b, c, s, h) in zip(images, ours, u.T.tolist()):
        x = F.adjust_brightness(image / 255, 1 + 0.4 * b)  # floats, as bytes lose one each step
        x = F.adjust_saturation(F.adjust_contrast(x, 1 + 0.4 * c), 1 + 0.4 * s)
        x = F.adjust_hue(x, 0.1 * h) * 255
        assert (x - out).abs().max() <= 1.5  # grey in whole levels, and the rounding of the result


def test_crop_and_flip_are_an_index_into_the_padded_image():
    image, expected = photos(1)[0], {}
    padded = F.pad(image, [PAD] * 4)
    for top in range(2 * PAD + 1):
        for left in range(2 * PAD + 1):
            cut = F.crop(padded, top, left, SIZE, SIZE)
            expected[cut.numpy().tobytes()] = (top, left, False)
            expected[cut.flip(2).numpy().tobytes()] = (top, left, True)
    out = build_augmentation("crop+flip").pixels(image.expand(2000, -1, -1, -1), seeded())
    drawn = [expected[x.numpy().tobytes()] for x in out]  # KeyError: no crop looks like this
    assert len(set(drawn)) == len(expected) == 2 * 9 * 9
    assert 900 < sum(flipped for *_, flipped in drawn) < 1100


@pytest.mark.parametrize("spec", PIXEL_SPECS)
def test_pixels_are_random_per_image_and_repeat_with_the_seed(spec):
    images = photos(1).expand(64, -1, -1, -1)
    original, augmentation = images.clone(), build_augmentation(spec)
    out = augmentation.pixels(images, seeded())
    assert out.shape == images.shape and out.dtype == torch.uint8
    assert torch.equal(images, original)  # the dataset is not written to
    assert len(out.flatten(1).unique(dim=0)) >= (2 if spec == "flip" else 20)
    assert torch.equal(out, augmentation.pixels(images, seeded()))
    assert not torch.equal(out, augmentation.pixels(images, seeded(1)))


def test_cutmix_weights_targets_by_the_area_pasted():
    B = 500
    images = torch.arange(B, dtype=torch.float32).view(B, 1, 1, 1).expand(-1, 3, SIZE, SIZE)
    mixed, targets = build_augmentation("cutmix(0.7)").mix(images, torch.eye(B), seeded())
    areas = torch.stack([(mixed[:, 0] == i).float().mean((1, 2)) for i in range(B)], 1)
    torch.testing.assert_close(targets, areas)  # whose pixels, in which share
    own = targets.diagonal()
    assert abs((own < 1).float().mean() - 0.7) < 0.07
    assert (own < 0.2).any() and (own[own < 1].mean() > 0.5)  # clipping leaves more than half
    boxes = mixed[:, 0] != images[:, 0]
    assert torch.equal(boxes.sum((1, 2)), boxes.any(2).sum(1) * boxes.any(1).sum(1))


def test_specs_have_arguments_or_defaults_and_none_changes_nothing():
    augmentation, images = build_augmentation("none"), photos(4)
    assert augmentation.pixels(images, seeded()) is images
    assert augmentation.mix(images, images, seeded()) == (images, images)
    assert build_augmentation("randaugment").parts == {"randaugment": (2, 9)}
    parts = build_augmentation(" crop + flip+randaugment(3, 15)+cutmix(.1)").parts
    assert parts == {"crop": (), "flip": (), "randaugment": (3, 15), "cutmix": (0.1,)}


WRONG = "rotate cutmix( cutmix(-1) crop(4) randaugment(2) randaugment(2,31) randaugment(2,9.5)"
WRONG = dict.fromkeys((*WRONG.split(), "", "cutmix(1.5)"), "known: " + ".*".join(NAMES))
WRONG |= {"flip": "twice", "none": "cannot be joined"}


@pytest.mark.parametrize("spec, message", WRONG.items())
def test_wrong_specs_are_errors_that_say_why(spec, message):
    with pytest.raises(ValueError, match=message):
        build_augmentation(f"flip+{spec}")


@pytest.mark.parametrize("images", (torch.rand(2, 3, 32, 32), photos(2)[..., :16], photos(2)[0]))
def test_pixels_reject_other_images(images):
    with pytest.raises(ValueError, match="expected uint8 images"):
        build_augmentation("flip").pixels(images, seeded())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("spec", PIXEL_SPECS + ("cutmix",))
def test_the_gpu_never_waits_for_the_host(spec):
    augmentation, generator = build_augmentation(spec), torch.Generator("cuda").manual_seed(0)
    images, targets = photos(16).cuda(), torch.eye(16).cuda()
    try:
        for mode in ("default", "error"):  # the first fills the cache of magnitudes
            torch.cuda.set_sync_debug_mode(mode)
            augmentation.mix(augmentation.pixels(images, generator).float(), targets, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_ops_are_the_same_on_the_gpu():
    op = torch.arange(len(OPS)).repeat(BINS)
    magnitude, images = augment.magnitude_table("cpu").T.flatten(), photos(len(op))
    host = augment.apply_op(images, op, magnitude)
    device = augment.apply_op(images.cuda(), op.cuda(), magnitude.cuda()).cpu()
    assert ((host.int() - device.int()).abs() > 1).float().mean() < 1e-3
