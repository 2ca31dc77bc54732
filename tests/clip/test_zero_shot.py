# LLM-assisted: prompts P3, P12, P15, P16, see report.md
"""CLIP's files load to identical outputs, and zero-shot logits are scaled cosines."""

from unittest.mock import Mock

import huggingface_hub
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F
from torchvision.models import resnet50

from cvassign import assets
from cvassign.clip import precision, zero_shot

torch.set_num_threads(1)
TEXTS = ["a photo of a tench.", "a tiger"]
PICTURE = Image.effect_noise((260, 300), 80).convert("RGB")


def test_openais_archive_gives_what_open_clip_gives(random_clip, openai_archive):
    """open_clip's own model of OpenAI's form, with QuickGELU, and its own preprocessing."""
    theirs, _, preprocess = open_clip.create_model_and_transforms("RN50-quickgelu")
    theirs.eval().load_state_dict(random_clip.state_dict())
    with torch.inference_mode():
        image = F.normalize(theirs.encode_image(preprocess(PICTURE)[None]), dim=-1)
        text = F.normalize(theirs.encode_text(open_clip.tokenize(TEXTS)), dim=-1)
    loaded = zero_shot.load(openai_archive)
    state = loaded.model.state_dict()
    assert all(torch.equal(state[k], v) for k, v in random_clip.state_dict().items())
    # kernels may sum in another order where a copy's memory is aligned otherwise
    assert torch.allclose(loaded.encode_image([PICTURE]), image, rtol=0, atol=1e-6)
    assert torch.allclose(loaded.encode_text(TEXTS), text, rtol=0, atol=1e-6)
    assert loaded.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)
    assert 1e-4 < (loaded.to("bf16").encode_image([PICTURE]) - image).abs().max() < 0.02


def test_the_named_file_is_taken_and_loses_nothing(tmp_path, monkeypatch):
    published = open_clip.create_model("RN50", precision="fp16").state_dict()
    torch.save(published, tmp_path / "half.pt")
    monkeypatch.setenv("CVASSIGN_CLIP", str(tmp_path / "half.pt"))
    loaded = zero_shot.load()
    assert loaded.name == "CLIP RN50 (half.pt)"  # not OpenAI's: its checksum is another
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    for name, tensor in loaded.to("fp16").model.state_dict().items():
        assert torch.equal(tensor, published[name]) and tensor.dtype == published[name].dtype, name
    save_file(published, tmp_path / "half.safetensors")
    distributed = {f"module.{name}": tensor for name, tensor in published.items()}
    torch.save({"state_dict": distributed, "epoch": 3}, tmp_path / "training.pt")
    monkeypatch.setattr(zero_shot, "rn50", Mock(return_value=zero_shot.rn50()))
    for file in ("half.pt", "half.safetensors", "training.pt"):
        visual, words = precision.image_encoder(tmp_path / file)
        weight = published["visual.conv1.weight"].float()
        assert torch.equal(visual.conv1.weight, weight) and file in words
    monkeypatch.setenv("CVASSIGN_CLIP", str(tmp_path / "none.pt"))
    with pytest.raises(ValueError, match="CVASSIGN_CLIP=.*none.pt: expected a file"):
        zero_shot.load()


def test_wrong_files_are_refused(random_clip, tmp_path, monkeypatch):
    monkeypatch.setattr(zero_shot, "rn50", lambda: random_clip)  # what it is not loaded into
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "resnet.pt")
    (tmp_path / "text.pt").write_bytes(b"<html>404</html>")
    for name, got in (("resnet.pt", '.*\n.*Missing key.*"positional'), ("text.pt", ".*web page")):
        with pytest.raises(ValueError, match=f"expected OpenAI's RN50.pt or a state dict.*{got}"):
            precision.image_encoder(tmp_path / name)


class Counting:
    """An encoder in two dimensions whose texts point where their length says."""

    name, logit_scale, calls, pictures = "counting", 10.0, 0, 0

    def encode_image(self, images):
        self.pictures += len(images)
        return torch.tensor([[1.0, 0.0]] * len(images))

    def encode_text(self, texts):
        self.calls += len(texts)
        angle = torch.tensor([float(len(t)) for t in texts])
        return torch.stack([angle.cos(), angle.sin()], dim=-1)


def test_zero_shot_is_scaled_cosine_of_mean_sentence(tmp_path):
    names, encoder = ["ox", "horse", "hippopotamus"], Counting()
    classifier = zero_shot.ZeroShot(encoder, "seven", names, cache=tmp_path)
    for name, got in zip(names, classifier.logits([PICTURE])[0]):
        each = encoder.encode_text([t(name) for t in zero_shot.TEMPLATES["seven"]])
        expected = F.normalize(each.mean(0), dim=0)[0] * 10
        assert got == pytest.approx(expected.item(), abs=1e-5)
    (top,) = classifier.topk([PICTURE], k=3)
    assert sum(p for _, p in top) == pytest.approx(1) and top[0][1] > top[1][1]
    assert encoder.pictures == 2  # the probe and this one
    before = encoder.calls
    again = zero_shot.ZeroShot(encoder, "seven", [*names, "ox", "zebra"], cache=tmp_path)
    assert encoder.calls == before + 14  # the probe's sentences and the new name's
    assert torch.equal(again.weights[:4], classifier.weights[[0, 1, 2, 0]])
    again.logits([PICTURE])
    assert encoder.pictures == 3  # the probe
    with pytest.raises(ValueError, match="single, seven, eighty, got 'nine'"):
        zero_shot.ZeroShot(encoder, "nine", names)


def test_architecture_in_numbers(random_clip):
    ours, theirs = zero_shot.parts(random_clip.visual), zero_shot.parts(resnet50())
    assert ours["all"] == 38_316_896 == 23_527_264 + ours["head"]
    assert ours["head"] == 14_789_632 and theirs["all"] == 25_557_032
    assert all(ours[f"layer{i}"] == theirs[f"layer{i}"] for i in range(1, 5))
    ours, theirs = zero_shot.flops(random_clip.visual), zero_shot.flops(resnet50())
    assert 8.1e9 < theirs["all"] < 8.3e9  # 4.09 billion multiply-adds
    more = [round((ours[part] - theirs[part]) / 1e9, 2) for part in (*zero_shot.PARTS, "all")]
    assert more == [0.48, 0, 0.69, 0.69, 0.69, 1.46, 4.02]


def test_open_clips_mirror_is_asked_through_a_proxy(server, random_clip, monkeypatch):
    monkeypatch.setattr(assets, "fetch", Mock(side_effect=assets.AssetError("not at OpenAI's")))
    monkeypatch.setattr(zero_shot, "rn50", lambda: random_clip)  # what is not loaded into
    monkeypatch.delenv("CVASSIGN_CLIP", raising=False)
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("https_proxy", server.address)
    huggingface_hub.close_session()
    server.lost = True
    with pytest.raises(assets.AssetError, match="(?s)not at OpenAI's.*open_clip: "):
        zero_shot.load()
    assert server.asked == ["huggingface.co:443"]  # once: its many tries would take a minute


@torch.inference_mode()
def test_a_batch_is_cut_to_its_longest_sentence_and_long_texts_are_named(random_clip):
    texts = [f"{n} " + "word " * n for n in (40, 0, 75, 1, 3, 9, 3, 60, 20, 100)]
    encoder = zero_shot.with_transforms("random", random_clip)
    lengths, block = [], random_clip.transformer.resblocks[0]
    hook = block.register_forward_pre_hook(lambda _m, inputs: lengths.append(inputs[0].shape[1]))
    with pytest.warns(UserWarning, match="2 texts are longer than 77 tokens.*75 word w.*; 100 wor"):
        found = encoder.encode_text(texts, batch_size=4)
    hook.remove()
    assert lengths == [6, 64, 77]  # with the marks of start and end, the shortest first
    whole = F.normalize(random_clip.encode_text(open_clip.tokenize(texts)), dim=-1)
    assert torch.allclose(found, whole, rtol=0, atol=1e-6)
