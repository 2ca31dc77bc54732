# LLM-assisted: prompts P4, see report.md
"""Sources lie wholly in one part, packages are read, features are kept by content."""

import io
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torchvision.models.resnet import BasicBlock, ResNet

from cvassign.clip import gallery, imagenet
from cvassign.study import twin_data

torch.set_num_threads(1)


def test_each_source_has_one_part():
    assert twin_data.part_of("github:EliSchwartz/imagenet-sample-images") == "train"
    assert twin_data.part_of("github:ajschumacher/imagen") == "test"
    assert twin_data.part_of("github:hendrycks/imagenet-r") == "test"
    # "/ph" is a set of icons, and no part of a word
    assert twin_data.part_of("npm:@iconify/json/ph") == "train"
    for source in ("somewhere", "a user's/photos"):
        with pytest.raises(ValueError, match=f"expected one part for the source .{source}"):
            twin_data.part_of(source)


def test_held_out_sources_are_the_tests():
    def picture(source):
        return gallery.Picture(Path("x.png"), 0, (0,), "photo", "photo", source, "CC0", "a", True)

    sources = ["debian:tuxpaint 1", "github:ajschumacher/imagen", "npm:twemoji", "a user's/photos",
               "github:EliSchwartz/imagenet-sample-images", "x/Homework2-Caltech101"]  # fmt: skip
    pictures = [picture(s) for s in sources]
    wider = [p.source for p in twin_data.held_out(pictures, known=("train",))]
    assert wider == [sources[i] for i in (0, 1, 3, 5)]
    found = [p.source for p in twin_data.held_out(pictures)]
    assert found == ["debian:tuxpaint 1", "github:ajschumacher/imagen", "a user's/photos"]
    # what the project's gallery takes is never trained on, by the words of either list
    assert all(s in twin_data.PARTS["test"] for s in gallery.SOURCES)


def png(title: str | None, more: str | None = None, size=(40, 30)) -> bytes:
    info, out = PngInfo(), io.BytesIO()
    for key, value in (("Title", title), ("Description", more)):
        if value:
            info.add_text(key, value)
    Image.new("RGBA", size, (255, 0, 0, 0)).save(out, "png", pnginfo=info)
    return out.getvalue()


@pytest.fixture
def package(tmp_path):
    """A .deb: ar with debian-binary, control.tar and data.tar; odd sizes are padded."""
    files = {"animals/cat.png": png("Cat"), "animals/dog.png": png("dog", "A dog that barks"),
             "animals/none.png": png(None), "shapes/patterns.txt": b"x",
             "signs_and_symbols/flags/x.png": png("A flag")}  # fmt: skip
    files |= {f"cards/{i}.png": png("card") for i in range(twin_data.MAX_TITLE + 1)}
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"./usr/share/openclipart/png/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("./usr/share/openclipart/png/animals/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "cat.png"
        tar.addfile(link)
    path = tmp_path / "x.deb"
    out = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0"), ("control.tar.xz", b"12345"),
                          ("data.tar.xz", data.getvalue())):  # fmt: skip
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}".encode()
        out += header + b"`\n" + content + b"\n" * (len(content) % 2)
    path.write_bytes(out)
    return path


def test_captions_of_the_package(package, monkeypatch):
    monkeypatch.setattr(twin_data.assets, "fetch", lambda name: package)
    cat, dog = twin_data.openclipart()  # no links, flags, series, untitled ones
    assert (cat.title, cat.caption, cat.path) == ("Cat", "Cat", "animals/cat.png")
    assert dog.caption == "dog, A dog that barks"
    assert min(cat.image.size) >= 256 and cat.image.getpixel((5, 5)) == (255, 255, 255)


def test_other_packages_are_refused(tmp_path):
    (tmp_path / "x.deb").write_bytes(b"PK\x03\x04 no package")
    with pytest.raises(ValueError, match="x.deb: expected a Debian package"):
        twin_data.debian_files(tmp_path / "x.deb")
    (tmp_path / "y.deb").write_bytes(b"!<arch>\n")
    with pytest.raises(ValueError, match="expected a member data.tar"):
        twin_data.debian_files(tmp_path / "y.deb")


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    network = ResNet(BasicBlock, [1, 1, 1, 1]).eval()
    transform = imagenet.preprocessing((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    return imagenet.Classifier("small", network, transform)


def test_features_are_the_classifiers_and_kept_by_content(classifier, tmp_path):
    pictures = [Image.effect_noise((260, 300), s).convert("RGB") for s in (40, 80)]
    file = tmp_path / "f.safetensors"
    features = twin_data.Features(classifier, file)
    x = features(pictures)
    # logits by way of the features are the network's own
    assert torch.allclose(features.logits(x), classifier.logits(pictures), atol=1e-4)
    assert torch.equal(features.classifier.logits(pictures), features.logits(x))
    fast = features(pictures, fast=True)  # rounded, and kept apart
    assert torch.allclose(fast, x, rtol=0.05, atol=0.05) and not torch.equal(fast, x)
    again = twin_data.Features(classifier, file)
    again.trunk = None  # nothing may be computed anew
    assert torch.equal(again(pictures[::-1]), x.flip(0))
    pictures[0].putpixel((130, 150), (1, 2, 3))
    with pytest.raises(Exception):
        again(pictures)  # another content is no hit
