# LLM-assisted: prompts P4, P9, see report.md
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
MISLABELLED = ("chestnut",)  # an edible one, labelled as buckeye
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
        if Path(r["path"]).stem not in MISLABELLED:
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
    with replacing(out / "manifest.csv") as file, \
            file.open("w", newline="", encoding="utf-8") as stream:  # fmt: skip
        writer = csv.DictWriter(stream, gallery.COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(chosen, key=lambda r: r["path"]))
    return len(chosen)


if __name__ == "__main__":
    print(bundle(Path(sys.argv[1])), "pictures in", HERE.name)
