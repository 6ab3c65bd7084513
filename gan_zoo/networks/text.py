"""Encoders of captions and images into one space of embeddings."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_zoo.ranges import Count, UnfitArgument, checked

_ABSENT = 0
_IMAGE_SIDE = 32
_CHUNK = 2000


def words_of(caption: str) -> list[str]:
    """A caption's words, of letters and digits of any script, in order and in lower case."""
    return re.findall(r"\w+", caption.lower())


class TextEncoder(nn.Module):
    """Captions -> embeddings (N, embedding_dim) of unit variance: the mean of a GRU's states.

    The mean generalises to new combinations of known words. The last state, which StackGAN's
    authors' encoder takes, hardly does: of inks and digits never seen together, a linear classifier
    read the digit from it in 66 % of the captions, and from the mean in all.

    The table of words has a fixed size, so that weights fit any vocabulary. Words that are not in
    the vocabulary are ignored.

        encoder = TextEncoder(embedding_dim=64)
        encoder.learn_vocabulary(["a thin red three", "a thick blue one"])
        embeddings = encoder.encode(["a thick red three"])    # (1, 64)

    Args:
        embedding_dim: length of an embedding.
        max_words: size of the vocabulary; the most frequent words are kept.
        word_dim: length of a word's vector.
        hidden_dim: units of the GRU.
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
        self.options = {
            "embedding_dim": embedding_dim,
            "max_words": max_words,
            "word_dim": word_dim,
            "hidden_dim": hidden_dim,
        }
        self.embedding_dim = embedding_dim
        self.vocabulary: dict[str, int] = {}
        self.words = nn.Embedding(max_words + 1, word_dim, padding_idx=_ABSENT)
        self.gru = nn.GRU(word_dim, hidden_dim, batch_first=True)
        self.project = nn.Linear(hidden_dim, embedding_dim)

    def learn_vocabulary(self, captions: Sequence[str]) -> None:
        """Makes the captions' most frequent words the vocabulary."""
        counts = Counter(word for caption in captions for word in words_of(caption))
        self.know(word for word, _ in counts.most_common(self.options["max_words"]))

    def know(self, words: Iterable[str]) -> None:
        """Makes these words the vocabulary, in the order of their rows in the table."""
        self.vocabulary = {word: row for row, word in enumerate(words, _ABSENT + 1)}

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """(N, length of the longest) int64: the known words' rows, then 0."""
        row = self.vocabulary
        known = [torch.tensor([row[w] for w in words_of(c) if w in row]) for c in captions]
        return nn.utils.rnn.pad_sequence(known, batch_first=True).long()

    def forward(self, tokens: Tensor) -> Tensor:
        states, _ = self.gru(self.words(tokens))
        present = tokens.ne(_ABSENT)[..., None]
        mean = (states * present).sum(1) / present.sum(1).clamp(min=1)
        return F.layer_norm(self.project(mean), (self.embedding_dim,))

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> Tensor:
        """Embeddings (N, embedding_dim) of captions; ValueError for one without any known word."""
        parts = []
        for start in range(0, len(captions), _CHUNK):
            chunk = captions[start : start + _CHUNK]
            for caption in chunk:
                if self.vocabulary.keys().isdisjoint(words_of(caption)):
                    raise ValueError(f"No word of the caption '{caption}' is known.")
            parts.append(self(self.tokens(chunk).to(self.project.weight.device)))
        return torch.cat(parts)

    def artifact(self) -> dict[str, Any]:
        """Plain data that ``text_encoder_from`` makes this encoder of again.

        ``kind`` is "gru"; ``options`` are the constructor's arguments by name; ``vocabulary`` is
        the words, in the order of their rows in the table, the first of which is row 1;
        ``weights`` are the tensors of the state by name, on the CPU.
        """
        return {
            "kind": "gru",
            "options": dict(self.options),
            "vocabulary": list(self.vocabulary),
            "weights": {name: weight.cpu() for name, weight in self.state_dict().items()},
        }


class SentenceTransformerEncoder(nn.Module):
    """A sentence-transformers model from a folder on disk; nothing is ever downloaded.

    It is used as it is. Checkpoints hold its path, not its weights.

        encoder = SentenceTransformerEncoder("all-MiniLM-L6-v2", embedding_dim=384)
        embeddings = encoder.encode(["a thick red three"])    # (1, 384)

    Args:
        path: the model's folder.
        embedding_dim: length of its embeddings.
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


def text_encoder_from(
    artifact: Mapping[str, Any], trust: Sequence[str] = ()
) -> TextEncoder | SentenceTransformerEncoder:
    """The encoder that ``artifact()`` describes, frozen and on the CPU.

    Builds the two kinds of this module and nothing else, whatever the artifact says; raises
    ValueError for another kind, or data that is not an artifact's. The folder of a sentence
    transformer may hold code: it is opened only if ``trust`` has "sentence_transformers".
    """
    kinds = {"gru": TextEncoder, "sentence_transformers": SentenceTransformerEncoder}
    kind = artifact.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"'{kind}' is not a kind of text encoder: {' or '.join(kinds)}.")
    try:
        if kind == "sentence_transformers" and kind not in trust:
            raise ValueError(
                f"The text encoder is the model in '{artifact['options']['path']}', a folder that "
                f"may hold code: trust={kind} opens it."
            )
        encoder = kinds[kind](**artifact["options"])
        if isinstance(encoder, TextEncoder):
            encoder.know(artifact["vocabulary"])
            encoder.load_state_dict(artifact["weights"])
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"The text encoder is damaged ({error}).") from error
    return encoder.eval().requires_grad_(False)


class ImageEncoder(nn.Module):
    """Images (B, C, H, W) of any size, resized to 32 pixels -> embeddings (B, embedding_dim).

    Trained together with the text encoder; three strided convolutions.
    """

    @checked
    def __init__(self, channels: Count, embedding_dim: Count) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width_in, width in ((channels, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(width_in, width, 4, 2, 1), nn.BatchNorm2d(width), nn.ReLU()]
        side = _IMAGE_SIDE // 2**3
        self.net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * side**2, embedding_dim))

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[-1] != _IMAGE_SIDE:
            image = F.interpolate(image, size=[_IMAGE_SIDE] * 2, mode="bilinear", antialias=True)
        return self.net(image)
