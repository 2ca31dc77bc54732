# LLM-assisted: prompts P3, see report.md
"""Writes `imagenet_classes.json`: the 1000 classes and all their hypernyms, from WordNet 3.0.

    python -m cvassign.clip.zero_shot.imagenet_table FOLDER COPYRIGHT

FOLDER has WordNet's `data.noun` (Debian's wordnet-base: /usr/share/wordnet), COPYRIGHT is its
licence text. ImageNet's synset ids are offsets into that file; their order is timm's list. nltk
would read it too, but wants files that the Debian package leaves out.
"""

import json
import sys
from pathlib import Path

from timm.data import ImageNetInfo

from cvassign.files import replacing

TABLE = Path(__file__).with_name("imagenet_classes.json")


def read_nouns(folder: Path) -> dict[str, dict]:
    """Every noun synset: {id: {"lemmas": […], "hypernyms": [ids], "definition": text}}."""
    nouns = {}
    for line in (folder / "data.noun").read_text(encoding="ascii").splitlines():
        if line.startswith(" "):  # the licence stands at the head of the file
            continue
        # offset, file number, "n", number of words (hexadecimal), word, id, word, id, …, number of
        # pointers, then four fields a pointer: symbol, offset, part of speech, source/target
        data, gloss = line.split(" | ", 1)
        fields = data.split()
        n_words = int(fields[3], 16)
        lemmas = [w.replace("_", " ") for w in fields[4 : 4 + 2 * n_words : 2]]
        pointers = fields[5 + 2 * n_words :]
        hypernyms = [f"n{pointers[i + 1]}" for i in range(0, len(pointers) - 3, 4)
                     if pointers[i] in ("@", "@i")]  # fmt: skip
        definition = gloss.split('; "')[0].strip()  # without the example sentences
        nouns[f"n{fields[0]}"] = {
            "lemmas": lemmas, "hypernyms": hypernyms, "definition": definition,
        }  # fmt: skip
    return nouns


def main(folder: str, copyright_file: str) -> None:
    """Writes the table."""
    nouns, classes = read_nouns(Path(folder)), ImageNetInfo().label_names()
    needed, queue = {}, list(classes)
    while queue:  # the classes and everything above them
        wnid = queue.pop()
        if wnid not in needed:
            needed[wnid] = nouns[wnid]
            queue += nouns[wnid]["hypernyms"]
    table = {
        "source": "WordNet 3.0, Princeton University (data.noun), ids and order of the 1000 "
        "ILSVRC classes from timm; written by cvassign/clip/imagenet_table.py",
        "licence": Path(copyright_file).read_text(),
        "classes": classes,
        "synsets": dict(sorted(needed.items())),
    }
    with replacing(TABLE) as temporary:
        temporary.write_text(json.dumps(table, ensure_ascii=False, indent=0) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
