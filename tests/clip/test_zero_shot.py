# LLM-assisted: prompts P3, P12, P15, P16, see report.md
"""CLIP's files load to identical outputs, and zero-shot logits are scaled cosines."""

import huggingface_hub
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F
from torchvision.models import resnet50

from cvassign import assets
from cvassign.clip import zero_shot

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit|.*Tracer")  # OpenAI's form
TEXTS = ["a photo of a tench.", "a tiger"]


@pytest.fixture(scope="module")
def picture():
    return Image.effect_noise((260, 300), 80).convert("RGB")


def test_openais_archive_gives_what_open_clip_gives(random_clip, picture, openai_archive):
    """open_clip's own model of OpenAI's form, with QuickGELU, and its own preprocessing."""
    theirs, _, preprocess = open_clip.create_model_and_transforms("RN50-quickgelu")
    theirs.eval().load_state_dict(random_clip.state_dict())
    with torch.inference_mode():
        image = F.normalize(theirs.encode_image(preprocess(picture)[None]), dim=-1)
        text = F.normalize(theirs.encode_text(open_clip.tokenize(TEXTS)), dim=-1)
    loaded = zero_shot.load(openai_archive)
    state = loaded.model.state_dict()
    assert all(torch.equal(state[k], v) for k, v in random_clip.state_dict().items())
    # kernels may sum in another order where a copy's memory is aligned otherwise
    assert torch.allclose(loaded.encode_image([picture]), image, rtol=0, atol=1e-6)
    assert torch.allclose(loaded.encode_text(TEXTS), text, rtol=0, atol=1e-6)
    assert loaded.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)
    low = loaded.to("bf16").encode_image([picture])
    assert 1e-4 < (low - image).abs().max() < 0.02


def test_the_named_file_is_taken_and_loses_nothing(random_clip, tmp_path, monkeypatch):
    published = zero_shot.convert(random_clip, "fp16").state_dict()
    torch.save(published, tmp_path / "half.pt")
    monkeypatch.setenv("CVASSIGN_CLIP", str(tmp_path / "half.pt"))
    loaded = zero_shot.load()
    assert loaded.name == "CLIP RN50 (half.pt)"  # not OpenAI's: its checksum is another
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    again = loaded.to("fp16").model.state_dict()
    assert again["visual.conv1.weight"].dtype == torch.float16
    assert again["visual.bn1.weight"].dtype == torch.float32
    for name, tensor in published.items():
        assert torch.equal(again[name], tensor) and again[name].dtype == tensor.dtype, name
    monkeypatch.setenv("CVASSIGN_CLIP", str(tmp_path / "none.pt"))
    with pytest.raises(ValueError, match="CVASSIGN_CLIP=.*none.pt: expected a file"):
        zero_shot.load()


@pytest.mark.parametrize("form", ("plain.pt", "training.pt", "x.safetensors"))
def test_a_state_is_read_from_any_form(form, tmp_path):
    state = {"visual.conv1.weight": torch.ones(2, 3)}
    training = {"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}
    save = save_file if form == "x.safetensors" else torch.save
    save(training if form == "training.pt" else state, tmp_path / form)
    found = zero_shot.read_state(tmp_path / form)
    assert list(found) == list(state) and torch.equal(*found.values(), *state.values())


def test_wrong_files_are_refused(random_clip, tmp_path, monkeypatch):
    monkeypatch.setattr(zero_shot, "rn50", lambda: random_clip)  # what it is not loaded into
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "resnet.pt")
    (tmp_path / "text.pt").write_bytes(b"<html>404</html>")
    for name, got in (("resnet.pt", '.*\n.*Missing key.*"positional'), ("text.pt", ".*web page")):
        with pytest.raises(ValueError, match=f"expected OpenAI's RN50.pt or a state dict.*{got}"):
            zero_shot.load(tmp_path / name)


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


def test_zero_shot_is_scaled_cosine_of_mean_sentence(tmp_path, picture):
    names, encoder = ["ox", "horse", "hippopotamus"], Counting()
    classifier = zero_shot.ZeroShot(encoder, "seven", names, cache=tmp_path)
    for name, got in zip(names, classifier.logits([picture])[0]):
        each = encoder.encode_text([t(name) for t in zero_shot.TEMPLATES["seven"]])
        expected = F.normalize(each.mean(0), dim=0)[0] * 10
        assert got == pytest.approx(expected.item(), abs=1e-5)
    (top,) = classifier.topk([picture], k=3)
    assert sum(p for _, p in top) == pytest.approx(1) and top[0][1] > top[1][1]
    assert encoder.pictures == 2  # the probe and this one
    before = encoder.calls
    again = zero_shot.ZeroShot(encoder, "seven", [*names, "ox", "zebra"], cache=tmp_path)
    assert encoder.calls == before + 14  # the probe's sentences and the new name's
    assert torch.equal(again.weights[:4], classifier.weights[[0, 1, 2, 0]])
    again.logits([picture])
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
    more = {part: (ours[part] - theirs[part]) / 1e9 for part in ours}
    strides = more["layer2"] + more["layer3"] + more["layer4"]
    parts = (more["stem"], more["layer1"], strides, more["head"], more["all"])
    assert [round(v, 2) for v in parts] == [0.48, 0, 2.08, 1.46, 4.02]


def test_open_clips_mirror_is_asked_through_a_proxy(server, random_clip, monkeypatch):
    def no(name):
        raise assets.AssetError("not at OpenAI's address")

    monkeypatch.setattr(assets, "fetch", no)
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
