# LLM-assisted: prompts P1, P15, see report.md
"""Every operation against torchvision's, one image at a time, and the randomness per image."""

import pytest
import torch
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from cvassign import augment
from cvassign.augment import BINS, NAMES, OPS, PAD, SIZE, build_augmentation

PIXEL_SPECS = ("crop", "flip", "jitter", "randaugment(2,9)", "crop+flip+randaugment(3,30)")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photos(n: int, seed: int = 0) -> torch.Tensor:
    """(n, 3, 32, 32) uint8: smooth blobs and noise of differing contrast, like a photo's levels."""
    g = seeded(seed)
    coarse = torch.rand(n, 3, 5, 5, generator=g)
    smooth = torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic", align_corners=True)
    noisy = smooth + 0.1 * torch.randn(n, 3, SIZE, SIZE, generator=g)
    contrast = torch.linspace(0.2, 1.2, n).view(n, 1, 1, 1)
    return ((noisy - 0.5) * contrast + 0.5).mul(255).clamp(0, 255).byte()


def torchvision_op(image: torch.Tensor, name: str, magnitude: float) -> torch.Tensor:
    return v2.RandAugment()._apply_image_or_video_transform(
        image, name, magnitude, interpolation=InterpolationMode.NEAREST, fill={torch.Tensor: None}
    )


def test_magnitudes_are_torchvisions():
    space = v2.RandAugment._AUGMENTATION_SPACE
    magnitudes, signed = augment.magnitude_table(torch.device("cpu"))
    assert set(space) == set(OPS)
    for name, (values, is_signed) in space.items():
        values = values(BINS, SIZE, SIZE)
        row = magnitudes[OPS.index(name)]
        assert is_signed == signed[OPS.index(name)]
        torch.testing.assert_close(row, torch.zeros(BINS) if values is None else values.float())


@pytest.mark.parametrize("name", OPS)
def test_each_op_equals_torchvisions(name):
    magnitudes, signed = augment.magnitude_table(torch.device("cpu"))
    number = OPS.index(name)
    magnitude = magnitudes[number]
    if signed[number]:
        magnitude = torch.cat([magnitude, -magnitude])
    images = photos(len(magnitude))
    images[3] = 77  # one level only: nothing to stretch or equalise
    images[4, 0] = 0
    op = torch.full((len(images),), number)
    ours = augment.apply_op(images, op, magnitude)
    theirs = torch.stack([torchvision_op(x, name, float(m)) for x, m in zip(images, magnitude)])
    error = (ours.int() - theirs.int()).abs()
    assert (error > 0).float().mean() < 0.01
    if name in OPS[:5]:  # a warp copies: equal, but for pixels halfway between two others
        assert (error == 0).all(3).all(2).all(1).float().mean() > 0.6
    else:
        assert error.max() <= 1
    if name != "Identity":
        assert (theirs != images).any()


def test_a_batch_of_mixed_ops_gives_each_image_its_own():
    images, op = photos(len(OPS)), torch.randperm(len(OPS), generator=seeded())
    table, _ = augment.magnitude_table(torch.device("cpu"))
    magnitude = table[op, 13]
    ours = augment.apply_op(images, op, magnitude)
    for i in range(len(OPS)):
        alone = augment.apply_op(images[[i]], op[[i]], magnitude[[i]])
        assert torch.equal(ours[[i]], alone)
        theirs = torchvision_op(images[i], OPS[op[i]], float(magnitude[i]))
        assert ((ours[i].int() - theirs.int()).abs() > 1).float().mean() < 0.01, OPS[op[i]]


def test_randaugment_applies_its_level_and_every_op():
    image = photos(8)[4:5]  # not of full range, or AutoContrast would do nothing
    images = image.expand(2000, -1, -1, -1)
    out = build_augmentation("randaugment(1,20)").pixels(images, seeded())
    seen = torch.zeros(len(out))
    for name, (values, is_signed) in v2.RandAugment._AUGMENTATION_SPACE.items():
        values = values(BINS, SIZE, SIZE)
        m = 0.0 if values is None else float(values[20])
        expected = [torchvision_op(image[0], name, s * m) for s in ((1, -1) if is_signed else (1,))]
        hits = [((out.int() - e.int()).abs() <= 1).float().mean((1, 2, 3)) > 0.98 for e in expected]
        for hit in hits:  # binomial: 2000 / 14 (/ 2) draws, standard deviation below 12
            assert abs(hit.sum() - 2000 / 14 / len(hits)) < 45, name
            seen += hit
    assert (seen > 0).all()


@pytest.mark.parametrize("factor", (-0.1, -0.03, 0.0, 0.05, 0.1))
def test_hue_equals_torchvisions(factor):
    images = photos(8)
    images[0] = images[0, :1]  # grey has no hue
    ours = augment.turn_hue(images.float(), torch.full((8,), factor)).round()
    theirs = F.adjust_hue(images, factor)
    assert (ours - theirs.float()).abs().max() <= 1


def test_jitter_is_torchvisions_in_its_order():
    images = photos(16)
    u = torch.rand(4, 16, generator=seeded(3)) * 2 - 1
    ours = augment.colour_jitter(images, seeded(3))
    for image, out, (b, c, s, h) in zip(images, ours, u.T.tolist()):
        x = F.adjust_brightness(image / 255, 1 + 0.4 * b)  # floats, as bytes lose one each step
        x = F.adjust_saturation(F.adjust_contrast(x, 1 + 0.4 * c), 1 + 0.4 * s)
        error = (F.adjust_hue(x, 0.1 * h) * 255 - out).abs()
        assert error.max() <= 1.5  # grey in whole levels, and the rounding of the result


def test_crop_and_flip_are_an_index_into_the_padded_image():
    image = photos(1)[0]
    padded = torch.zeros(3, SIZE + 2 * PAD, SIZE + 2 * PAD, dtype=torch.uint8)
    padded[:, PAD:-PAD, PAD:-PAD] = image
    expected = {}
    for top in range(2 * PAD + 1):
        for left in range(2 * PAD + 1):
            cut = padded[:, top : top + SIZE, left : left + SIZE]
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
    assert len({x.numpy().tobytes() for x in out}) >= (2 if spec == "flip" else 20)
    assert torch.equal(out, augmentation.pixels(images, seeded()))
    assert not torch.equal(out, augmentation.pixels(images, seeded(1)))


def test_none_changes_nothing():
    augmentation, images = build_augmentation("none"), photos(4)
    x, y = torch.randn(4, 3, SIZE, SIZE), torch.eye(4)
    assert augmentation.pixels(images, seeded()) is images
    assert augmentation.mix(x, y, seeded()) == (x, y)


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


def test_spec_defaults_and_arguments():
    assert build_augmentation("randaugment").parts == {"randaugment": (2, 9)}
    parts = build_augmentation(" crop + flip+randaugment(3, 15)+cutmix(.1)").parts
    assert parts == {"crop": (), "flip": (), "randaugment": (3, 15), "cutmix": (0.1,)}


WRONG = (
    "rotate|crop+|cutmix(|cutmix(-1)|crop(4)|randaugment(2)|randaugment(2,31)|randaugment(2,9.5)"
)


@pytest.mark.parametrize("spec", (*WRONG.split("|"), "", "cutmix(1.5)", "cutmix(0.1,0.2)"))
def test_unknown_specs_are_errors_that_list_the_known(spec):
    with pytest.raises(ValueError, match="known: " + ".*".join(NAMES)):
        build_augmentation(f"flip+{spec}")


def test_contradictory_specs_are_errors():
    for spec, message in (("flip+flip", "twice"), ("none+crop", "cannot be joined")):
        with pytest.raises(ValueError, match=message):
            build_augmentation(spec)


@pytest.mark.parametrize("images", (torch.rand(2, 3, 32, 32), photos(2)[..., :16], photos(2)[0]))
def test_pixels_reject_other_images(images):
    with pytest.raises(ValueError, match="expected uint8 images"):
        build_augmentation("flip").pixels(images)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("spec", PIXEL_SPECS + ("cutmix",))
def test_the_gpu_never_waits_for_the_host(spec):
    augmentation, generator = build_augmentation(spec), torch.Generator("cuda").manual_seed(0)
    images, targets = photos(16).cuda(), torch.eye(16).cuda()

    def run():
        return augmentation.mix(augmentation.pixels(images, generator).float(), targets, generator)

    run()  # fills the cache of magnitudes
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_ops_are_the_same_on_the_gpu():
    op = torch.arange(len(OPS)).repeat(BINS)
    level = torch.arange(BINS).repeat_interleave(len(OPS))
    magnitude = augment.magnitude_table(torch.device("cpu"))[0][op, level]
    images = photos(len(op))
    host = augment.apply_op(images, op, magnitude)
    device = augment.apply_op(images.cuda(), op.cuda(), magnitude.cuda()).cpu()
    error = (host.int() - device.int()).abs()
    assert (error > 1).float().mean() < 1e-3
