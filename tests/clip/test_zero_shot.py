# LLM-assisted: prompts P3, P12, P15, P16, see report.md
"""CLIP's files load to identical outputs, and zero-shot logits are scaled cosines."""

import huggingface_hub
import open_clip
import pytest
import torch
from PIL import Image
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


@pytest.mark.parametrize("form", ["openai archive", "training checkpoint"])
def test_files_load_to_identical_outputs(form, random_clip, picture, tmp_path, openai_archive):
    """A plain state dict: `test_the_named_file_is_taken_and_never_passed_over`."""
    file, state = tmp_path / "weights.pt", random_clip.state_dict()
    if form == "training checkpoint":
        state = {"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}
        torch.save(state, file)
    loaded = zero_shot.load(openai_archive if form == "openai archive" else file)
    # open_clip's own preprocessing of its own OpenAI model, and its own towers
    _, _, preprocess = open_clip.create_model_and_transforms("RN50-quickgelu")
    with torch.inference_mode():
        image = F.normalize(random_clip.encode_image(preprocess(picture)[None]), dim=-1)
        text = F.normalize(random_clip.encode_text(open_clip.tokenize(TEXTS)), dim=-1)
    for name, tensor in random_clip.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name
    # kernels may sum in another order where a copy's memory is aligned otherwise
    assert torch.allclose(loaded.encode_image([picture]), image, rtol=0, atol=1e-6)
    assert torch.allclose(loaded.encode_text(TEXTS), text, rtol=0, atol=1e-6)
    assert loaded.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)
    assert torch.allclose(loaded.to("bf16").encode_image([picture]), image, rtol=0, atol=0.02)


def test_weights_published_in_half_precision_lose_nothing(random_clip, tmp_path):
    published = zero_shot.convert(random_clip, "fp16").state_dict()
    torch.save(published, tmp_path / "half.pt")
    loaded = zero_shot.load(tmp_path / "half.pt")
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    again = loaded.to("fp16").model.state_dict()
    assert again["visual.conv1.weight"].dtype == torch.float16
    assert again["visual.bn1.weight"].dtype == torch.float32
    for name, tensor in published.items():
        assert torch.equal(again[name], tensor) and again[name].dtype == tensor.dtype, name


def test_gelu_is_the_quick_one():
    torch.manual_seed(0)
    theirs = open_clip.create_model("RN50-quickgelu").eval()
    plain = open_clip.create_model("RN50").eval()
    ours = zero_shot.rn50()
    for m in (ours, plain):
        m.load_state_dict(theirs.state_dict())
    tokens = open_clip.tokenize(TEXTS)
    with torch.inference_mode():
        a, b, c = (m.encode_text(tokens) for m in (ours, theirs, plain))
    assert torch.equal(a, b) and not torch.allclose(a, c, atol=1e-4)


def test_wrong_files_are_refused(tmp_path):
    torch.save(resnet50().state_dict(), tmp_path / "resnet.pt")
    with pytest.raises(ValueError, match="expected the tensors of CLIP RN50; missing"):
        zero_shot.load(tmp_path / "resnet.pt")
    (tmp_path / "text.pt").write_bytes(b"<html>404</html>")
    with pytest.raises(ValueError, match="expected OpenAI's RN50.pt or a state dict"):
        zero_shot.load(tmp_path / "text.pt")


class Counting:
    """An encoder in two dimensions whose texts point where their length says."""

    name, logit_scale, preprocess, calls, pictures = "counting", 10.0, None, 0, 0

    def encode_image(self, images):
        self.pictures += len(images)
        return F.normalize(torch.tensor([[1.0, 0.0]] * len(images)), dim=-1)

    def encode_text(self, texts):
        self.calls += len(texts)
        angle = torch.tensor([float(len(t)) for t in texts])
        return torch.stack([angle.cos(), angle.sin()], dim=-1)


def test_zero_shot_is_scaled_cosine_of_mean_sentence(tmp_path, picture):
    names, encoder = ["ox", "horse", "hippopotamus"], Counting()
    classifier = zero_shot.ZeroShot(encoder, "seven", names, cache=tmp_path)
    for i, name in enumerate(names):
        each = encoder.encode_text([t(name) for t in zero_shot.TEMPLATES["seven"]])
        expected = F.normalize(each.mean(0), dim=0)[0] * 10
        got = classifier.logits([picture])[0, i]
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


def test_the_named_file_is_taken_and_never_passed_over(random_clip, tmp_path, monkeypatch):
    torch.save(random_clip.state_dict(), tmp_path / "mine.pt")
    monkeypatch.setenv("CVASSIGN_CLIP", str(tmp_path / "mine.pt"))
    loaded = zero_shot.load()
    assert loaded.name == "CLIP RN50 (mine.pt)"  # not OpenAI's: its checksum is another
    assert torch.equal(loaded.model.visual.conv1.weight, random_clip.visual.conv1.weight)
    monkeypatch.setenv("CVASSIGN_CLIP", str(tmp_path / "none.pt"))
    with pytest.raises(ValueError, match="CVASSIGN_CLIP=.*none.pt: expected a file"):
        zero_shot.load()


def test_open_clips_mirror_is_asked_through_a_proxy(server, monkeypatch):
    def no(name):
        raise assets.AssetError("not at OpenAI's address")

    monkeypatch.setattr(assets, "fetch", no)
    monkeypatch.delenv("CVASSIGN_CLIP", raising=False)
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("https_proxy", server.address)
    huggingface_hub.close_session()
    server.lost = True
    with pytest.raises(assets.AssetError, match="(?s)not at OpenAI's.*open_clip: "):
        zero_shot.load()
    assert server.asked == ["huggingface.co:443"]  # once: its many tries would take a minute


@torch.inference_mode()
def test_a_batch_is_cut_to_its_longest_sentence(random_clip):
    texts = ["word " * n for n in (40, 0, 76, 1, 3, 9, 3, 60, 20, 100)]
    encoder = zero_shot.OpenClip("random", random_clip, None, open_clip.get_tokenizer("RN50"))
    lengths, block = [], random_clip.transformer.resblocks[0]
    hook = block.register_forward_pre_hook(lambda _m, inputs: lengths.append(inputs[0].shape[1]))
    with pytest.warns(UserWarning, match="2 texts are longer"):
        found = encoder.encode_text(texts, batch_size=4)
    hook.remove()
    assert lengths == [5, 62, 77]  # with the marks of start and end, the shortest first
    whole = F.normalize(random_clip.encode_text(open_clip.tokenize(texts)), dim=-1)
    assert torch.allclose(found, whole, rtol=0, atol=1e-6)


def test_texts_that_are_cut_are_named(random_clip):
    encoder = zero_shot.OpenClip("random", random_clip, None, open_clip.get_tokenizer("RN50"))
    with pytest.warns(UserWarning, match="1 texts are longer than 77 tokens.*word word"):
        encoder.encode_text(["a tiger", "word " * 100])
