# LLM-assisted: prompts P14, P15, see report.md
"""Reasons that are tested: one thing in a picture is changed, and its class is looked for again.

If the right class comes back, what was changed was in its way; if nothing moves, it was not.
`CHANGES` lists them all: each takes a picture in RGB and the mask of its object, (H, W) bool, and
some a photo from which they borrow. Nothing is drawn by chance but from a fixed seed.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageChops, ImageFilter, ImageOps

TOLERANCE = 40  # sum over R, G, B up to which a colour belongs to the background
PLAIN, NOISE = 0.5, 12  # a background is plain when this share of the border differs no more
MIDDLE = 0.4  # of a photo's shorter side, where no mask tells what is its object


def mask_of(image: Image.Image) -> np.ndarray | None:
    """Where the object is, (H, W) bool: its alpha channel, else what a flood of the background from
    the border does not reach, so that white inside a closed line belongs to the object.

    Returns:
        None when there is no plain background, or (almost) nothing but it.
    """
    if "A" in image.getbands() and image.getchannel("A").getextrema()[0] < 128:
        mask = np.asarray(image.getchannel("A")) >= 128
    else:
        far = _from_background(image)
        if (_border(far) <= NOISE).mean() < PLAIN:
            return None
        mask = ~_flooded(far <= TOLERANCE)
    return mask if 0.01 < mask.mean() < 0.99 else None


def _border(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])


def _background(image: Image.Image) -> tuple[int, ...]:
    """The border's median colour."""
    return tuple(np.median(_border(np.asarray(image.convert("RGB"))), axis=0).astype(int).tolist())


def _from_background(image: Image.Image) -> np.ndarray:
    """How far each pixel's colour is from the background's, (H, W), summed over R, G, B."""
    return np.abs(np.asarray(image.convert("RGB"), dtype=int) - _background(image)).sum(-1)


def _flooded(free: np.ndarray) -> np.ndarray:
    """The free pixels that are connected to the border by free ones."""
    wet = np.zeros_like(free)
    wet[[0, -1]], wet[:, [0, -1]] = free[[0, -1]], free[:, [0, -1]]
    while True:
        more = wet.copy()
        more[1:] |= wet[:-1]
        more[:-1] |= wet[1:]
        more[:, 1:] |= wet[:, :-1]
        more[:, :-1] |= wet[:, 1:]
        more &= free
        if (more == wet).all():
            return wet
        wet = more


def _paste(image: Image.Image, under: Image.Image, mask: np.ndarray) -> Image.Image:
    return Image.composite(image, under, Image.fromarray(mask))


def grey(image: Image.Image, mask=None) -> Image.Image:
    """The luma alone (Rec. 601), in all three channels."""
    return image.convert("L").convert("RGB")


def background(image: Image.Image, mask: np.ndarray, photo: Image.Image) -> Image.Image:
    """The photo, blurred by a twentieth of its side, in the place of the background."""
    scene = ImageOps.fit(photo, image.size)
    return _paste(image, scene.filter(ImageFilter.GaussianBlur(max(image.size) / 20)), mask)


def surface(image: Image.Image, mask: np.ndarray, photo: Image.Image) -> Image.Image:
    """The surface of the photo's object inside the outline, the picture's shading kept: what its
    luma has more or less than its mean is added to the photo's colours."""
    luma = np.asarray(image.convert("L"), dtype=float)
    shading = luma - luma[mask].mean()
    laid = np.asarray(_over(patch(photo), mask)) + shading[..., None]
    return _paste(Image.fromarray(laid.round().clip(0, 255).astype(np.uint8)), image, mask)


def disc(image: Image.Image, mask: np.ndarray, photo: Image.Image) -> Image.Image:
    """The same surface without the outline: in a disc of the object's area, on white."""
    (w, h), radius = image.size, min(np.sqrt(mask.sum() / np.pi), min(image.size) / 2)
    y, x = np.ogrid[:h, :w]
    inside = (x - (w - 1) / 2) ** 2 + (y - (h - 1) / 2) ** 2 <= radius**2
    return _paste(_over(patch(photo), inside), Image.new("RGB", image.size, "white"), inside)


def photo_in_place(image: Image.Image, mask: np.ndarray, photo: Image.Image) -> Image.Image:
    """The photo's object instead of the picture's, on its background, as large and in the middle of
    its place; a photo without a plain background as it is."""
    found, out = mask_of(photo), Image.new("RGB", image.size, _background(image))
    x, y, right, bottom = Image.fromarray(mask).getbbox()
    if found is not None:
        box = Image.fromarray(found).getbbox()
        photo, found = photo.crop(box), Image.fromarray(found).crop(box)
    photo = ImageOps.contain(photo, (right - x, bottom - y))
    corner = ((x + right - photo.width) // 2, (y + bottom - photo.height) // 2)
    out.paste(photo, corner, found and found.convert("L").resize(photo.size))
    return out


def _over(photo: Image.Image, mask: np.ndarray) -> Image.Image:
    """A photo over the mask's bounding box, in its own proportions."""
    whole = Image.fromarray(mask)
    x, y, right, bottom = whole.getbbox()
    out = Image.new("RGB", whole.size)
    out.paste(ImageOps.fit(photo, (right - x, bottom - y)), (x, y))
    return out


def patch(photo: Image.Image) -> Image.Image:
    """The largest square that lies inside a photo's object, which loses its outline by it;
    the middle `MIDDLE` of a photo without a plain background."""
    mask, photo = mask_of(photo), photo.convert("RGB")
    side = round(MIDDLE * min(photo.size))
    x, y = ((n - side) // 2 for n in photo.size)
    if mask is not None:  # without what shines through, such as the ground between two legs
        mask &= _from_background(photo) > TOLERANCE
        inner = np.asarray(Image.fromarray(mask).convert("L").filter(ImageFilter.MinFilter(3))) > 0
        x, y, side = largest_square(inner if inner.any() else mask)
    return photo.crop((x, y, x + side, y + side))


def largest_square(mask: np.ndarray) -> tuple[int, int, int]:
    """x, y and side of the largest square inside the mask, of several the topmost."""
    total = np.pad(mask.astype(int).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    for side in range(min(mask.shape), 0, -1):
        ends = total[side:, side:] - total[:-side, side:] - total[side:, :-side]
        full = ends + total[:-side, :-side] == side**2
        if full.any():
            y, x = np.unravel_index(full.argmax(), full.shape)
            return int(x), int(y), side
    raise ValueError("expected a mask with an object, got an empty one")


def outline(image: Image.Image, mask: np.ndarray) -> Image.Image:
    """The object's contour as a black line on white, about a hundredth of the side wide."""
    shape, width = Image.fromarray(mask).convert("L"), 2 * round(max(image.size) / 200) + 1
    inner = ImageOps.expand(shape, width).filter(ImageFilter.MinFilter(2 * width + 1))
    inner = ImageOps.crop(inner, width)
    return ImageOps.invert(ImageChops.subtract(shape, inner)).convert("RGB")


def silhouette(image: Image.Image, mask: np.ndarray) -> Image.Image:
    """The object in black on white."""
    return ImageOps.invert(Image.fromarray(mask).convert("L")).convert("RGB")


def blur(image: Image.Image, mask=None) -> Image.Image:
    """Without fine detail: Gaussian, its standard deviation a sixtieth of the side."""
    return image.filter(ImageFilter.GaussianBlur(max(image.size) / 60))


def shuffled(image: Image.Image, mask=None, n: int = 4, seed: int = 0) -> Image.Image:
    """The picture's n x n patches in another order; a rest of less than n pixels stays."""
    w, h = image.size[0] // n, image.size[1] // n
    places = [(x * w, y * h) for y in range(n) for x in range(n)]
    out = image.copy()
    for (x, y), place in zip(random.Random(seed).sample(places, n * n), places):
        out.paste(image.crop((x, y, x + w, y + h)), place)
    return out


def smaller(image: Image.Image, mask=None) -> Image.Image:
    """Half as large, in the middle of its background's colour."""
    w, h = image.size
    out = Image.new("RGB", image.size, _background(image))
    out.paste(image.resize((w // 2, h // 2)), (w // 4, h // 4))
    return out


def turned(image: Image.Image, mask=None) -> Image.Image:
    """A quarter turn to the left."""
    return image.transpose(Image.Transpose.ROTATE_90)


@dataclass(frozen=True)
class Change:
    """One change to a picture."""

    apply: Callable[..., Image.Image]  # image, mask[, photo] -> image
    meaning: str  # in a line
    of: str = ""  # the photo that it borrows: "own" class, "other" class, a "scene", or none
    masked: bool = True  # whether it needs the mask


CHANGES = {
    "grey": Change(grey, "grey instead of colour", masked=False),
    "background": Change(background, "a blurred photo as background", "scene"),
    "surface": Change(surface, "the surface of a photo of its class inside the outline", "own"),
    "other surface": Change(surface, "the surface of a photo of another class", "other"),
    "surface alone": Change(disc, "its class's surface in a disc, no outline", "own"),
    "photo in place": Change(photo_in_place, "a photo of its class in its place", "own"),
    "outline": Change(outline, "the outline alone, as a line"),
    "silhouette": Change(silhouette, "the outline alone, filled with black"),
    "blur": Change(blur, "blurred", masked=False),
    "shuffled": Change(shuffled, "its 4 × 4 patches in another order", masked=False),
    "smaller": Change(smaller, "half as large", masked=False),
    "turned": Change(turned, "a quarter turn to the left", masked=False),
}  # fmt: skip
AS_IS, WHOLE = "as is", "whole photo"
PHOTOS = ("surface alone", "photo in place", WHOLE)  # a photo of the class, or a piece of one
NEUTRAL = ("turned", "smaller")  # they leave colour, surface, outline and details to the object


def lenders(picture, pictures: Sequence) -> dict:
    """The photos of a gallery that a picture's changes borrow from, drawn by the picture's name.

    Returns:
        {"own": of its class, "other": of a class of another branch, "scene": of another class and
        without a plain background}, as far as there are any. For a surface cut-out photos go first:
        of others nobody knows where the object is.
    """
    draw = random.Random("/".join(picture.path.parts[-3:]))
    photos = [p for p in pictures if p.kind == "photo" and not p.cropped and p.path != picture.path]
    cut_out = [p for p in photos if p.style == "photo_cutout"]
    own = [p for p in photos if p.index == picture.index]
    kinds = {
        "own": [p for p in own if p in cut_out] or own,
        "other": [p for p in cut_out if p.branch != picture.branch],
        "scene": [p for p in photos if p.index != picture.index and p.style == "photo"],
    }
    return {kind: draw.choice(some) for kind, some in kinds.items() if some}


def versions(picture, pictures: Sequence) -> dict[str, Image.Image]:
    """A `gallery.Picture` as it is and under every change for which its mask and photos are there:
    {`AS_IS`, names of `CHANGES`, and of a close-up `WHOLE`, its photo: picture}."""
    image = picture.image
    with Image.open(picture.path) as file:  # with its alpha channel
        mask = mask_of(image if picture.cropped else file)
    photos = {kind: p.image for kind, p in lenders(picture, pictures).items()}
    out = {AS_IS: image}
    for name, change in CHANGES.items():
        if (mask is not None or not change.masked) and (not change.of or change.of in photos):
            out[name] = change.apply(image, mask, *([photos[change.of]] if change.of else ()))
    if picture.cropped:
        out[WHOLE] = replace(picture, cropped=None).image
    return out


def ranks(model, images: Sequence[dict[str, object]], indices: Sequence[int]) -> list[dict]:
    """How a model with `logits(images) -> (n, K)` places the right class before and after each
    change, from `versions` of each picture and its class: one {change: (rank, counted from 1, and
    probability)} a picture."""
    logits = model.logits([image for some in images for image in some.values()])
    rows = [index for some, index in zip(images, indices) for _ in some]
    own = logits[range(len(rows)), rows]
    rank = (1 + (logits > own[:, None]).sum(dim=1)).tolist()
    found = iter(zip(rank, (own - logits.logsumexp(dim=1)).exp().tolist()))
    return [{name: next(found) for name in some} for some in images]


def strips(pictures: Sequence, lenders: Sequence, models: dict) -> list[dict]:
    """What the changes, which borrow photos of `lenders`, do to each picture, as `plots.answers`
    shows it: {change: (image, {model: rank})} a picture."""
    images = [versions(p, lenders) for p in pictures]
    found = [ranks(m, images, [p.index for p in pictures]) for m in models.values()]
    return ranked(images, [dict(zip(models, of)) for of in zip(*found)])


def ranked(images: Sequence[dict], found: Sequence[dict[str, dict]]) -> list[dict]:
    """The `strips` of pictures from `versions` and {model: `ranks`} of each."""
    return [
        {name: (image, {m: of[name][0] for m, of in ranks.items()}) for name, image in some.items()}
        for some, ranks in zip(images, found)
    ]


def brings_back(strip: dict, model: str, k: int = 5) -> tuple[list[str], str]:
    """Which changes of one of `strips` bring the right class among a model's k best, the best
    first, and what follows for a picture that has it not.

    Returns:
        The changes, and "tested" where they are reasons; else "close call" (rank up to 2k as it
        is), "no change helped", "a photo or a piece" (`PHOTOS`, another picture, or a piece of
        one), "not decided" (one of `NEUTRAL` does it too), or "surface suffices" (only its own
        surface does it, which is recognised without the drawing as well).
    """
    rank = {name: ranks[model] for name, (_, ranks) in strip.items()}
    back = sorted((name for name in rank if name != AS_IS and rank[name] <= k), key=rank.get)
    reasons = set(back) - set(PHOTOS)
    if rank[AS_IS] <= 2 * k:
        return back, "close call"
    if not reasons:
        return back, "a photo or a piece" if back else "no change helped"
    if reasons & set(NEUTRAL):
        return back, "not decided"
    alone = reasons == {"surface"} and "surface alone" in back
    return back, "surface suffices" if alone else "tested"


def effects(ranks: Sequence[dict], k: int = 5) -> dict[str, dict[str, str]]:
    """What each change does to some pictures, from `ranks` of each: {change: {in how many of those
    that it was made to the class is among the k best, its median rank, and in how many its rank is
    better than as it is, or than with another class's surface}}."""
    table = {}
    for name in dict.fromkeys(name for some in ranks for name in some):
        of = [some for some in ranks if name in some]
        mine = [some[name][0] for some in of]
        row = {f"in the top {k}": f"{sum(rank <= k for rank in mine)} of {len(of)}"}
        row["median rank"] = f"{np.median(mine):g}"
        for base in (AS_IS, "other surface"):
            pairs = [(r, some[base][0]) for r, some in zip(mine, of) if base in some]
            better = f"{sum(r < before for r, before in pairs)} of {len(pairs)}"
            row[f"better than {base}"] = better if pairs and name != base else "–"
        table[name] = row
    return table


def row(picture, strip: dict, model: str) -> dict:
    """A line of 3.1.4's table: a picture that a model misses, and what `brings_back` its class."""
    back, verdict = brings_back(strip, model)
    return {
        "class": picture.class_name,
        "picture": picture.style,
        "pixels": "{} × {}".format(*picture.image.size),
        "missed by": model.split(",")[0],
        "rank": strip[AS_IS][1][model],
        "brought back by": ", ".join(back) or "–",
        "what follows": verdict,
    }
