# LLM-assisted: prompts P14, P15, see report.md
"""Each change does what its name says, and nothing else."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from cvassign.clip import counterfactual as cf
from cvassign.clip.counterfactual import CHANGES
from cvassign.clip.gallery import Picture

BOX = (16, 24, 63, 55)  # of the drawing, its last pixels included
GREEN = (90, 130, 60)
# A red box with a bright half on white, and its mask; a green disc with stripes on white.
IMAGE, MASK = Image.new("RGB", (80, 80), "white"), np.zeros((80, 80), bool)
ImageDraw.Draw(IMAGE).rectangle(BOX, (120, 40, 40))
ImageDraw.Draw(IMAGE).rectangle((40, *BOX[1:]), (160, 80, 80))
MASK[BOX[1] : BOX[3] + 1, BOX[0] : BOX[2] + 1] = True
PHOTO = Image.new("RGB", (100, 100), "white")
ImageDraw.Draw(PHOTO).ellipse((20, 20, 80, 80), GREEN)
for x in range(24, 80, 8):
    ImageDraw.Draw(PHOTO).line((x, 45, x, 55), (70, 110, 40))


def pixels(image) -> np.ndarray:
    return np.asarray(image, dtype=int)


def test_mask_from_alpha_and_from_the_background():
    assert (cf.mask_of(IMAGE) == MASK).all()
    ImageDraw.Draw(hollow := IMAGE.copy()).rectangle((30, 30, 36, 36), "white")
    assert (cf.mask_of(hollow) == MASK).all()  # closed: it belongs to the object
    noisy = pixels(IMAGE) - np.random.default_rng(0).integers(0, 5, (80, 80, 3))
    assert (cf.mask_of(Image.fromarray(noisy.clip(0, 255).astype(np.uint8))) == MASK).all()
    white = Image.new("RGBA", (80, 80), (255, 255, 255, 0))
    white.paste((255, 255, 255, 255), (10, 10, 30, 30))  # white on white: alpha alone tells
    assert cf.mask_of(white).sum() == 400 and cf.mask_of(white)[10:30, 10:30].all()
    assert cf.mask_of(Image.effect_noise((80, 80), 90)) is None  # no plain background
    assert cf.mask_of(Image.new("RGB", (80, 80), "white")) is None  # nothing but it


def test_background_is_a_blurred_photo_outside_of_the_mask():
    out = pixels(cf.background(IMAGE, MASK, PHOTO))
    assert (out[MASK] == pixels(IMAGE)[MASK]).all()
    around, sharp = out[~MASK], pixels(PHOTO.resize((80, 80)))[~MASK]
    assert abs(around.mean() - sharp.mean()) < 12 and around.std() < 0.8 * sharp.std()


def test_surface_stays_inside_and_keeps_the_shading():
    out = pixels(cf.surface(IMAGE, MASK, PHOTO))
    assert (out[~MASK] == pixels(IMAGE)[~MASK]).all()
    dark, bright = out[26:30, 20:36], out[26:30, 44:60]  # where no stripe is
    assert np.ptp(dark.reshape(-1, 3), axis=0).max() <= 3
    # the photo's colour, and between the halves the same step in luma as before
    assert np.abs((dark + bright).mean((0, 1)) / 2 - GREEN).max() <= 3
    assert np.abs((bright - dark).mean((0, 1)) - 40).max() <= 2
    inside = pixels(cf.surface(cf.silhouette(IMAGE, MASK), MASK, PHOTO))[MASK]  # no shading
    assert np.abs([inside.max(0) - GREEN, inside.min(0) - (70, 110, 40)]).max() <= 3


def test_surface_takes_nothing_of_the_photos_shape():
    assert pixels(cf.patch(PHOTO)).max() < 140  # no white of its background
    ImageDraw.Draw(holed := PHOTO.copy()).rectangle((45, 45, 55, 55), "white")
    assert pixels(cf.patch(holed)).max() < 140  # nor what shines through
    scene = Image.effect_noise((100, 60), 90).convert("RGB")
    assert cf.patch(scene).tobytes() == scene.crop((38, 18, 62, 42)).tobytes()  # its middle
    assert cf.largest_square(np.pad(np.ones((5, 9), bool), ((2, 1), (3, 4)))) == (3, 2, 5)
    with pytest.raises(ValueError, match="expected a mask with an object"):
        cf.largest_square(np.zeros((4, 4), bool))


def test_surface_alone_is_a_disc_of_the_same_area():
    disc = (pixels(cf.disc(IMAGE, MASK, PHOTO)) != 255).any(-1)
    assert disc.sum() == pytest.approx(MASK.sum(), rel=0.05)
    assert (disc == disc.T).all() and (disc == disc[::-1]).all() and not disc[:10].any()


def test_photo_in_place_is_as_large_and_on_the_same_background():
    out = cf.photo_in_place(IMAGE, MASK, PHOTO)
    disc = Image.fromarray(cf.mask_of(out))
    assert disc.getbbox() == (24, 24, 56, 56)  # of BOX the height, in the middle
    assert np.abs(pixels(out)[26:30, 34:46].mean((0, 1)) - GREEN).max() < 3
    grey = Image.new("RGB", (80, 80), (200, 200, 200))
    assert pixels(cf.photo_in_place(grey, MASK, PHOTO))[~MASK].min() == 200


def test_what_changes_the_picture_alone():
    assert (pixels(cf.grey(IMAGE)) == pixels(IMAGE.convert("L"))[..., None]).all()
    assert (pixels(cf.turned(IMAGE)) == np.rot90(pixels(IMAGE))).all()
    small = cf.smaller(IMAGE)
    assert small.size == IMAGE.size
    assert (pixels(small)[20:60, 20:60] == pixels(IMAGE.resize((40, 40)))).all()
    assert cf.mask_of(small).sum() == pytest.approx(MASK.sum() / 4, rel=0.1)
    assert ((pixels(cf.silhouette(IMAGE, MASK)) == 0) == MASK[..., None]).all()
    inner = np.roll(MASK, (1, 1), (0, 1)) & np.roll(MASK, (-1, -1), (0, 1))
    line = (pixels(cf.outline(IMAGE, MASK)) == 0).all(-1)
    assert (line == (MASK & ~inner)).all()
    sharp, soft = pixels(PHOTO), pixels(cf.blur(PHOTO))  # less detail, the same mean
    assert np.abs(np.diff(soft, axis=1)).max() < np.abs(np.diff(sharp, axis=1)).max() / 2
    assert abs(soft.mean() - sharp.mean()) < 1


def test_shuffled_keeps_the_patches():
    image = Image.effect_noise((83, 80), 90).convert("RGB")  # 83: a rest of three columns
    out = cf.shuffled(image)
    assert cf.shuffled(image).tobytes() == out.tobytes() != image.tobytes()
    assert (pixels(out)[:, 80:] == pixels(image)[:, 80:]).all()
    corners = list(product(range(0, 80, 20), repeat=2))
    of = [[im.crop((x, y, x + 20, y + 20)).tobytes() for y, x in corners] for im in (image, out)]
    assert sorted(of[0]) == sorted(of[1]) and of[0] != of[1]


@pytest.fixture
def pictures(tmp_path):
    """A drawing of class 1 with one photo of it, a photo of another branch and a scene."""
    images = IMAGE, PHOTO, PHOTO.rotate(45, fillcolor="white"), Image.effect_noise((90, 60), 90)
    indices, styles, found = (1, 1, 400, 500), ("clipart", *["photo_cutout"] * 2, "photo"), []
    for image, index, style in zip(images, indices, styles):
        image.save(path := tmp_path / f"{len(found)}.png")
        kind = "rendition" if style == "clipart" else "photo"
        found.append(Picture(path, index, (index,), style, kind, "s", "CC0", "a", True))
    return found


def test_versions_borrow_from_the_right_photos_and_leave_out_what_is_missing(pictures):
    drawn, own, other, scene = pictures
    assert cf.lenders(drawn, pictures) == {"own": own, "other": other, "scene": scene}
    assert list(cf.versions(drawn, pictures)) == [cf.AS_IS, *CHANGES]
    alone = [name for name, change in CHANGES.items() if not change.of]
    assert list(cf.versions(drawn, [drawn])) == [cf.AS_IS, *alone]
    unmasked = [name for name, change in CHANGES.items() if not change.masked]
    assert list(cf.versions(scene, pictures)) == [cf.AS_IS, *unmasked]
    some = cf.versions(replace(own, cropped=(own.path, (0.0, 0.0, 0.5, 0.5))), pictures)
    assert some[cf.AS_IS].size == (50, 50) and some[cf.WHOLE].size == (100, 100)
    assert "surface" not in some  # its own photo does not lend


def test_ranks_follow_the_model(pictures):
    class ByRed:  # class 0 by redness, class 1 by greenness, class 2 is constant
        def logits(self, images):
            mean = [pixels(i).reshape(-1, 3).mean(0) for i in images]
            return torch.tensor([[m[0], m[1], 250.0] for m in mean])

    some = cf.versions(pictures[0], pictures)
    found, of_red = cf.ranks(ByRed(), [some, some], [1, 0])
    assert set(found) == set(some)
    rank, p = found[cf.AS_IS]
    expected = ByRed().logits([some[cf.AS_IS]]).softmax(1)[0, 1].item()
    assert rank == 3 and p == pytest.approx(expected) and of_red[cf.AS_IS][0] == 2
    table = {name: [*row.values()] for name, row in cf.effects([found, of_red], k=2).items()}
    assert table["grey"] == ["2 of 2", "2", "1 of 2", "1 of 2"]  # behind the constant alone
    assert table["other surface"] == ["1 of 2", "2.5", "1 of 2", "–"]  # green before red
    (strip,) = cf.strips(pictures[:1], pictures, {"red": ByRed()})
    assert strip["grey"][1] == {"red": 2} and set(strip) == set(some)
    assert cf.brings_back(strip, "red", k=1)[0] == sorted(n for n in strip if found[n][0] == 1)


VERDICTS = {  # of changes that bring the class back
    "no change helped": ("",),
    "a photo or a piece": ("photo in place,surface alone,whole photo",),
    "not decided": ("grey,turned", "smaller"),
    "surface suffices": ("surface,surface alone",),
    "tested": ("grey,photo in place", "surface,photo in place", "surface,surface alone,grey"),
}


@pytest.mark.parametrize("verdict, back", [(v, b) for v, some in VERDICTS.items() for b in some])
def test_a_reason_is_one_only_where_a_neutral_change_does_not_do_it_too(verdict, back):
    back = set(filter(None, back.split(",")))
    for as_is, expected in ((11, verdict), (10, "close call")):
        ranks = {n: 5 if n in back else 6 for n in (*CHANGES, cf.WHOLE)} | {cf.AS_IS: as_is}
        found, why = cf.brings_back({n: (None, {"m": rank}) for n, rank in ranks.items()}, "m")
        assert set(found) == back and why == expected
