# LLM-assisted: prompts P4, see report.md
"""Icons and emoji that bear the name of a class, drawn from Iconify's collection of open sets.

The npm package @iconify/json (asset "iconify") holds some 240 sets of icons, each a JSON file with
SVG bodies by name. Nearly every set has a hand of its own, and most draw in one colour: renditions that
photographs and colourful clip art do not prepare for. The labels are the icons' names, by rule.
"""

import io
import json
import re
import tarfile
from dataclasses import replace
from pathlib import Path

from PIL import Image

from cvassign import assets
from cvassign.clip import gallery
from cvassign.files import replacing

PACKAGE = "npm:@iconify/json"
VALIDATION = ("lucide", "whh", "picon", "boxicons", "si-glyph")  # all other sets are trained on, but …
# … those of a hand that is measured (Boxicons was bx, Lucide grew out of Feather) or labelled already,
HANDS = ("fluent", "fxemoji", "game-icons", "noto", "bx", "feather", "lucide-", "openmoji", "twemoji")
# and marks of products, in which "jaguar" is no cat.
PRODUCTS = ("Logos", "Programming", "devicon", "fa-brands", "fa6-brands")
SIZE = 288  # pixels a side, as the labelled emoji have it
MARGIN = 0.06  # of the icon's longer side: networks know no picture that touches all borders


def names(labelled: list[gallery.Picture]) -> dict[str, gallery.Picture]:
    """Icon name -> a labelled picture of its class.

    A class goes by its curated names ("hot-dog"), and by the names of its labelled emoji
    ("tiger-face"), which all sets of emoji share. A name that two classes bear is left out.
    """
    found: dict[str, dict[int, gallery.Picture]] = {}
    for p in labelled:
        called = re.split(r" or |,|/", re.sub(r"\(.*?\)", "", p.class_name.lower()))
        called = [re.sub(r"[^a-z0-9]+", "-", name.strip()) for name in called]
        for name in [p.path.stem] if "moji" in p.source else called:
            found.setdefault(name, {})[p.index] = p
    return {name: classes.popitem()[1] for name, classes in found.items() if len(classes) == 1}


def part_of(prefix: str, info: dict) -> str | None:
    """What a set of icons is for: "train", "validation", or None for nothing.

    Args:
        prefix: its name.
        info: what it says of itself: `category`, `license`.
    """
    if prefix in VALIDATION:
        return "validation"
    may_be_used = "-NC" not in info["license"].get("spdx", "")
    of_products = info.get("category") in PRODUCTS or prefix.startswith(PRODUCTS)
    return "train" if may_be_used and not of_products and not prefix.startswith(HANDS) else None


def load(labelled: list[gallery.Picture]) -> list[gallery.Picture]:
    """The icons that `names` names of the sets that have a part, drawn into the cache folder once.

    Args:
        labelled: training pictures, which give the names.

    Raises:
        assets.AssetError: when the package cannot be had.
        ModuleNotFoundError: when icons are to be drawn and resvg-py is not installed.
    """
    wanted, found = names(labelled), []
    package = assets.fetch("iconify")
    folder = assets.cache_dir() / package.stem
    missing = set(VALIDATION)
    with tarfile.open(package) as tar:
        for member in tar:  # a compressed tar is read once, front to back
            if re.fullmatch("package/json/[^/]+[.]json", member.name):
                content, prefix = json.load(tar.extractfile(member)), Path(member.name).stem
                missing.discard(prefix)
                if part_of(prefix, content["info"]):
                    found += read(content, prefix, wanted, folder)
    if missing:
        raise ValueError(f"{package.name}: expected the sets {', '.join(sorted(missing))}, got none")
    return sorted(found, key=lambda p: p.path)


def read(content: dict, prefix: str, wanted: dict[str, gallery.Picture], folder: Path
         ) -> list[gallery.Picture]:  # fmt: skip
    """The wanted icons of one set, drawn as PNG below `folder` where they are not yet.

    Args:
        content: the set's JSON: `info`, `icons` and `aliases` by name, `width` and `height`.
        prefix: its name.
        wanted: icon name -> a picture of its class.
    """
    info, pictures, drawn = content["info"], [], set()
    for name in sorted(wanted):
        icon = content["icons"].get(name)
        alias = content.get("aliases", {}).get(name, {})
        if set(alias) == {"parent"}:  # another name of the same icon; others turn or mirror it
            icon = content["icons"].get(alias["parent"])
        if icon is None or icon["body"] in drawn:
            continue
        drawn.add(icon["body"])
        path = folder / prefix / f"{name}.png"
        if not path.exists():
            with replacing(path) as temporary:
                draw({**content, **icon}).save(temporary, "png")
        pictures.append(replace(
            wanted[name], path=path, style="icon_colour" if info.get("palette") else "icon_mono",
            kind="rendition", source=f"{PACKAGE}/{prefix}", licence=info["license"]["spdx"],
            attribution=info["author"]["name"], may_be_shown=True,
        ))  # fmt: skip
    return pictures


def draw(icon: dict) -> Image.Image:
    """An icon's `body` on white, (SIZE, SIZE) RGB; one without a colour of its own is black.

    Args:
        icon: `body` (SVG elements), and its view box: `left`, `top`, `width`, `height`.
    """
    import resvg_py  # only the training of the twin draws icons

    left, top = icon.get("left", 0), icon.get("top", 0)
    width, height = icon.get("width", 16), icon.get("height", 16)  # 16: Iconify's default
    m = MARGIN * max(width, height)
    svg = (f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
           f'viewBox="{left - m} {top - m} {width + 2 * m} {height + 2 * m}" '
           f'width="{SIZE}" height="{SIZE}" color="#000">{icon["body"]}</svg>')  # fmt: skip
    png = resvg_py.svg_to_bytes(svg_string=svg, background="#ffffff")
    return Image.open(io.BytesIO(bytes(png))).convert("RGB")
