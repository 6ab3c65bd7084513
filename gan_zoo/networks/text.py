"""Encoders of captions and images into one space of embeddings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_zoo.networks.layers import Chain
from gan_zoo.ranges import Count, UnfitArgument, checked

_ABSENT = 0


def words_of(caption: str) -> list[str]:
    """A caption's words, in order and in lower case: letters and digits of any script."""
    return re.findall(r"\w+", caption.lower())


class TextEncoder(nn.Module):
    """Captions -> embeddings (N, embedding_dim) of unit variance: the mean of a GRU's states.

    The mean generalises to new combinations of known words. The last state, which StackGAN's
    authors' encoder takes, hardly does: of inks and digits never seen together, a linear classifier
    read the digit from it in 66 % of the captions, and from the mean in all.

        encoder = TextEncoder(embedding_dim=64)
        encoder.learn_vocabulary(["a thin red three", "a thick blue one"])
        embeddings = encoder.encode(["a thick red three"])    # (1, 64)

    The vocabulary is the ``max_words`` most frequent words; others are ignored. Its table has a
    fixed size, so that weights fit any vocabulary. A word's vector has ``word_dim`` values, and the
    GRU ``hidden_dim`` units.
    """

    @checked
    def __init__(
        self,
        embedding_dim: Count = 64,
        max_words: Count = 2000,
        word_dim: Count = 32,
        hidden_dim: Count = 128,
    ) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self.vocabulary: dict[str, int] = {}
        self.words = nn.Embedding(max_words + 1, word_dim, padding_idx=_ABSENT)
        self.gru = nn.GRU(word_dim, hidden_dim, batch_first=True)
        self.project = nn.Linear(hidden_dim, embedding_dim)

    def learn_vocabulary(self, captions: Sequence[str]) -> None:
        """Makes the captions' most frequent words the vocabulary."""
        counts = Counter(word for caption in captions for word in words_of(caption))
        known = counts.most_common(self.words.num_embeddings - 1)
        self.vocabulary = {word: row for row, (word, _) in enumerate(known, _ABSENT + 1)}

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """(N, length of the longest) int64: the known words' rows, then 0."""
        known = [
            torch.tensor([self.vocabulary[w] for w in words_of(c) if w in self.vocabulary])
            for c in captions
        ]
        return nn.utils.rnn.pad_sequence(known, batch_first=True).long()

    def forward(self, tokens: Tensor) -> Tensor:
        states, _ = self.gru(self.words(tokens))
        present = tokens.ne(_ABSENT)[..., None]
        mean = (states * present).sum(1) / present.sum(1).clamp(min=1)
        return F.layer_norm(self.project(mean), (self.embedding_dim,))

    @torch.no_grad()
    def encode(self, captions: Sequence[str], chunk_size: int = 2000) -> Tensor:
        """Embeddings (N, embedding_dim) of captions, on the encoder's device.

        ValueError for a caption without any known word.
        """
        for caption in captions:
            if not any(word in self.vocabulary for word in words_of(caption)):
                raise ValueError(f"No word of the caption '{caption}' is known.")
        device = self.project.weight.device
        starts = range(0, len(captions), chunk_size)
        chunks = [self.tokens(captions[start : start + chunk_size]) for start in starts]
        return torch.cat([self(tokens.to(device)) for tokens in chunks])

    def artifact(self) -> dict[str, Any]:
        """Plain data that ``text_encoder_from`` makes this encoder of again.

        ``kind`` is "gru"; ``options`` are the constructor's arguments by name; ``vocabulary`` is
        the words in the order of their rows, from row 1 on; ``weights`` are tensors on the CPU.
        """
        options = {
            "embedding_dim": self.embedding_dim,
            "max_words": self.words.num_embeddings - 1,
            "word_dim": self.words.embedding_dim,
            "hidden_dim": self.gru.hidden_size,
        }
        weights = {name: p.detach().cpu() for name, p in self.named_parameters()}
        words = list(self.vocabulary)
        return {"kind": "gru", "options": options, "vocabulary": words, "weights": weights}

    def get_extra_state(self) -> list[str]:
        return list(self.vocabulary)

    def set_extra_state(self, state: list[str]) -> None:
        self.vocabulary = {word: row for row, word in enumerate(state, _ABSENT + 1)}


class SentenceTransformerEncoder(nn.Module):
    """A sentence-transformers model from a folder on disk; nothing is ever downloaded.

    It is used as it is. Checkpoints hold its path, not its weights.

        encoder = SentenceTransformerEncoder("all-MiniLM-L6-v2", embedding_dim=384)
        embeddings = encoder.encode(["a thick red three"])    # (1, 384)

    ValueError if the package or the folder ``path`` is missing, or the embeddings' length is
    another than ``embedding_dim``.
    """

    @checked
    def __init__(self, path: str | Path, embedding_dim: Count) -> None:
        super().__init__()
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ValueError(
                "This text encoder needs the package sentence-transformers: pip install "
                "sentence-transformers, or choose dataset/text_encoder=gru."
            ) from error
        if not Path(path).is_dir():
            raise UnfitArgument("path", f"is '{path}'; it has to be the folder of a model.")
        model = SentenceTransformer(str(path), device="cpu", local_files_only=True)
        length = len(model.encode("", show_progress_bar=False))
        if length != embedding_dim:
            problem = f"is {embedding_dim}; it has to be {length}, as in the model in '{path}'."
            raise UnfitArgument("embedding_dim", problem)
        self.path = Path(path)
        self.embedding_dim = embedding_dim
        # In a list, so that it is no submodule: its weights stay out of checkpoints.
        self._model: list[Any] = [model]

    def encode(self, captions: Sequence[str]) -> Tensor:
        """Embeddings (N, embedding_dim) of captions, on the CPU."""
        embeddings = self._model[0].encode(
            list(captions), convert_to_tensor=True, show_progress_bar=False
        )
        return embeddings.detach().clone().float()

    def artifact(self) -> dict[str, Any]:
        """As TextEncoder's; ``kind`` is "sentence_transformers", and there are ``options`` only."""
        options = {"path": str(self.path), "embedding_dim": self.embedding_dim}
        return {"kind": "sentence_transformers", "options": options}


def text_encoder_from(artifact: Mapping[str, Any]) -> TextEncoder | SentenceTransformerEncoder:
    """The encoder that ``artifact()`` describes, frozen and on the CPU.

    ValueError for a kind that is none of the two here, or data that is not an artifact's.
    """
    kinds = {"gru": TextEncoder, "sentence_transformers": SentenceTransformerEncoder}
    kind = str(artifact.get("kind"))
    if kind not in kinds:
        raise ValueError(f"'{kind}' is not a kind of text encoder: {' or '.join(kinds)}.")
    try:
        encoder = kinds[kind](**artifact["options"])
        if kind == "gru":
            words = {"_extra_state": artifact["vocabulary"]}
            encoder.load_state_dict({**artifact["weights"], **words})
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"The text encoder is damaged ({error}).") from error
    return encoder.eval().requires_grad_(False)


class ImageEncoder(Chain):
    """Images (B, C, H, W) of any size, resized to 32 pixels -> embeddings (B, embedding_dim).

    Trained together with the text encoder; three strided convolutions.
    """

    @checked
    def __init__(self, channels: Count, embedding_dim: Count) -> None:
        n = 16
        layers: list[nn.Module] = []
        for width_in, width in ((channels, n), (n, 2 * n), (2 * n, 4 * n)):
            layers += [nn.Conv2d(width_in, width, 4, 2, 1), nn.BatchNorm2d(width), nn.ReLU()]
        super().__init__(*layers, nn.Flatten(), nn.Linear(4 * n * 4**2, embedding_dim))

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[-1] != 32:
            image = F.interpolate(image, size=(32, 32), mode="bilinear", antialias=True)
        return self.net(image)
