# LLM-assisted: prompts P4, P9, P14, P15, see report.md
"""Writes this folder anew, from a folder of labelled pictures with the same manifest.csv.

python gallery/make.py FOLDER
"""

import csv
import sys
from collections import Counter, defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from cvassign.clip import gallery  # noqa: E402
from cvassign.files import replacing  # noqa: E402
from cvassign.pictures import open_rgb  # noqa: E402

RENDITIONS, OF_TRAINING, SIDE = 6, 2, 224
# Not of the class they are labelled as: NAME or SOURCE/NAME, and what they are.
MISLABELLED = {
    "animals_mammals_bears_bear": "a black bear",
    "animals_mammals_rodents_rabbit": "a white rabbit, no cottontail",
    "animals_mammals_rodents_rabbit-2": "a white rabbit, no cottontail",
    "animals_seal": "a seal without ears",
    "animals_seal_sek_": "a walrus",
    "bicycle": "a town bicycle",
    "buildings_school_country__abiclipa_01": "a school",
    "camera": "a camera without a mirror",
    "chestnut": "an edible one, no buckeye",
    "flute": "a recorder",
    "fluent-emoji/mushroom": "a fly agaric",
    "fluent-emoji/tennis": "a racket",
    "fxemoji/cat": "a cat without stripes",
    "fxemoji/mushroom": "a fly agaric",
    "hot-beverage": "a mug",
    "hotbeverage": "a mug",
    "leafy-green": "lettuce",
    "one-piece-swimsuit": "a bathing suit",
    "openmoji/mushroom": "a fly agaric",
    "openmoji/rabbit": "a black and white rabbit",
    "ping-pong": "a bat",
    "ping-pong-bat": "a bat",
    "seal": "a seal without ears",
    "src_activities_erase_resource_penguin": "a pale penguin, no king penguin",
    "src_activities_explore_farm_animals_resource_animals_sheep": "a sheep without horns",
    "tangerine": "a tangerine, no orange",
    "transportation_vehicles_bicycle_01": "a racing bicycle",
    "twemoji/mushroom": "a fly agaric",
}
DRAWN = ("clothes_t_sock",)  # listed among cut-out photos


def bundle(folder: Path, out: Path = HERE) -> int:
    """Copies the openly licensed pictures of a folder into the project's own gallery, by rule.

    Of each class every photo and up to `RENDITIONS` renditions, one of every style before a second
    of any, of the twin's training sources at most `OF_TRAINING`; as WebP of `SIDE` pixels.

    Returns:
        The number of pictures.
    """
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        rows = [r for r in csv.DictReader(stream) if r["may_be_committed"] == "yes"]
    by_class = defaultdict(list)
    for r in rows:
        if Path(r["path"]).stem in DRAWN:
            r |= {"style": "clipart", "kind": "rendition"}
        source, name = Path(r["path"]).parts[0], Path(r["path"]).stem
        if not {name, f"{source}/{name}"} & set(MISLABELLED):
            by_class[int(r["imagenet_class_index"])].append(r)
    chosen = []
    for mine in by_class.values():
        chosen += [r for r in mine if r["kind"] == "photo"]
        count, left = Counter(), {True: OF_TRAINING, False: RENDITIONS}
        renditions = [r for r in mine if r["kind"] != "photo"]
        for r in renditions:
            r["known"] = not any(s in r["source_repo"] for s in gallery.SOURCES)
            count[r["style"], r["known"]] += 1
            r["again"] = count[r["style"], r["known"]]
        taken = []
        for r in sorted(renditions, key=lambda r: (r["known"], r["again"], r["path"])):
            if left[r["known"]] and len(taken) < RENDITIONS:
                left[r["known"]] -= 1
                taken.append(r)
        chosen += taken
    for r in chosen:
        image = open_rgb(folder / r["path"])
        image.thumbnail((SIDE, SIDE))
        r["path"] = Path(r["path"]).with_suffix(".webp").as_posix()
        (out / r["path"]).parent.mkdir(parents=True, exist_ok=True)
        image.save(out / r["path"], quality=75, method=6)
    with (
        replacing(out / "manifest.csv") as file,
        file.open("w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.DictWriter(stream, gallery.COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(chosen, key=lambda r: r["path"]))
    return len(chosen)


if __name__ == "__main__":
    print(bundle(Path(sys.argv[1])), "pictures in", HERE.name)
