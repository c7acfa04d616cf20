"""Training: every trainer makes Hugging Face's file, to the byte, whatever the corpus, its cut and the threads."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, pre_tokenizers

from storage.errors import InputError
from tests.tokenizer.conftest import CORPUS
from tokenizer import merges, pair_kernels, training
from tokenizer.encode import Encoder
from tokenizer.samples import hard_samples
from tokenizer.training import TrainingConfig, train_by_kernels, train_by_reference, train_tokenizer
from tokenizer.vocabulary import TokenizerFile, describe_tokenizer
from tokenizer.words import WordCounter, pattern

Train = Callable[[list[pa.StringArray], TrainingConfig], bytes]
TRICKY = "aaAsStTdDlLvVreEmM'’ \u017f\u212a09½²٣ⅷ中文한éе\u0301\u093f\u0903.,-=_#\t\n\r\u00a0\u2028\u0085\u200b🌾\x00"
"""Letters of contractions, digits of all kinds, marks, spaces and line ends, where words are cut."""


def pieces(data: bytes, text: str) -> list[str]:
    tokenizer = Tokenizer.from_str(data.decode())
    return [tokenizer.decode([identifier]) for identifier in tokenizer.encode(text).ids]


def counted(texts: list[str | None], max_digits: int) -> dict[bytes, int]:
    counter = WordCounter(max_digits)
    counter.add(pa.array(texts, pa.string()))
    words = counter.words()
    data, starts = words.data.tobytes(), words.starts.tolist()
    return {data[a:b]: n for a, b, n in zip(starts, starts[1:], words.counts.tolist(), strict=False)}


def counted_by_hugging_face(texts: list[str | None], max_digits: int) -> dict[bytes, int]:
    split = pre_tokenizers.Split(Regex(pattern(max_digits)), "isolated")
    return Counter(piece.encode() for text in texts if text for piece, _ in split.pre_tokenize_str(text))


class TestWords:
    @settings(deadline=None, max_examples=150)
    @given(
        texts=st.lists(st.none() | st.text(st.sampled_from(TRICKY), max_size=30) | st.text(max_size=20), max_size=5),
        max_digits=st.sampled_from([1, 3]),
    )
    @example(texts=["'\u017f 'S x'll 'rE'Ve 'l '", " \n \n  a", "  \r\n\t", "1234 12345"], max_digits=3)
    def test_they_are_those_of_hugging_face(self, texts: list[str | None], max_digits: int) -> None:
        texts = [text if text is None else text.encode("utf-8", "replace").decode() for text in texts]
        assert counted(texts, max_digits) == counted_by_hugging_face(texts, max_digits)

    def test_every_code_point_is_taken_for_the_same(self) -> None:
        codes = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
        texts = ["".join(f"x{char}x {char}. " for char in codes[i : i + 5000]) for i in range(0, 0x40000, 5000)]
        assert counted(texts, 1) == counted_by_hugging_face(texts, 1)

    def test_more_words_than_there_was_room_for(self) -> None:
        words = ["".join(chr(ord("a") + i // 26**k % 26) for k in range(4)) * (1 + i % 5) for i in range(70_000)]
        texts: list[str | None] = [" ".join(words)]
        found = counted(texts, 1)
        assert len(found) == 70_000
        assert found == counted_by_hugging_face(texts, 1)

    def test_a_slice_of_a_column_is_counted_alone(self) -> None:
        column = pa.array(["left out", "in it", None, "and this", "left out"])
        counter = WordCounter(1)
        counter.add(column.slice(1, 3))
        assert int(counter.words().counts.sum()) == 4


class TestMerges:
    @settings(deadline=None, max_examples=100)
    @given(
        texts=st.lists(
            st.text("ab", max_size=40) | st.text("aab -", max_size=60) | st.text(st.sampled_from(TRICKY), max_size=40),
            min_size=1,
            max_size=6,
        ),
        extra=st.integers(0, 120),
        min_frequency=st.integers(0, 3),
        max_token_bytes=st.integers(2, 70),
        special_tokens=st.lists(
            st.sampled_from(["a", "ab", "aa", "Ġ", "Ġa", "aaaa", "<s>", "中", "--", " a"]), unique=True, max_size=4
        ),
    )
    def test_they_are_those_of_hugging_face(
        self, texts: list[str], extra: int, min_frequency: int, max_token_bytes: int, special_tokens: list[str]
    ) -> None:
        config = TrainingConfig(
            size=261 + extra,
            min_frequency=min_frequency,
            max_token_bytes=max_token_bytes,
            special_tokens=tuple(special_tokens),
        )
        batch = [pa.array(texts)]
        assert train_by_kernels(batch, config) == train_by_reference(batch, config)

    @pytest.mark.parametrize(
        "config",
        [
            TrainingConfig(size=2000),
            TrainingConfig(size=102_400, min_frequency=0, max_digits=3, max_token_bytes=1000),
            TrainingConfig(size=500, end_of_document="</s>", special_tokens=("<pad>", "the", "def", "a")),
        ],
    )
    def test_of_all_scripts_and_hard_samples(self, config: TrainingConfig) -> None:
        batches = [pa.array(CORPUS), pa.array(hard_samples())]
        assert train_by_kernels(batches, config) == train_by_reference(batches, config)

    @pytest.mark.parametrize("unit", ["a", "ab", "aab", "abcab", "= "])
    def test_two_ways_to_one_entry(self, unit: str) -> None:
        """Runs of many lengths: an entry made of others in two ways is one, and its pairs may come up twice."""
        dice = random.Random(3)
        texts = [
            " ".join(unit * dice.randrange(1, 60) + "xyz"[: dice.randrange(3)] for _ in range(30)) for _ in range(20)
        ]
        for size in (280, 300, 400):
            config = TrainingConfig(size=size)
            assert train_by_kernels([pa.array(texts)], config) == train_by_reference([pa.array(texts)], config)

    def test_a_corpus_larger_than_the_first_arrays(self) -> None:
        dice = random.Random(5)
        roots = ["".join(dice.choices("etaoinshrdlucmfw", k=dice.randrange(2, 12))) for _ in range(30_000)]
        texts = [" ".join(dice.choices(roots, k=50_000)) + "z" * 9_000]
        config = TrainingConfig(size=3000)
        assert train_by_kernels([pa.array(texts)], config) == train_by_reference([pa.array(texts)], config)


@pytest.mark.parametrize("train", [train_by_kernels, train_by_reference])
class TestRules:
    def train(self, train: Train, texts: list[str], config: TrainingConfig) -> bytes:
        return train([pa.array(texts)], config)

    def test_every_digit_stands_alone(self, train: Train) -> None:
        data = self.train(train, ["in 1234 and 1234 again 1234"] * 50, TrainingConfig(size=600))
        assert pieces(data, "in 1234") == ["in", " ", "1", "2", "3", "4"]

    def test_three_digits_stand_together(self, train: Train) -> None:
        data = self.train(train, ["in 1234 and 1234 again 1234"] * 50, TrainingConfig(size=600, max_digits=3))
        assert pieces(data, "in 1234") == ["in", " ", "123", "4"]

    def test_indentation_is_one_token(self, train: Train) -> None:
        code = "def f():\n        return None\n"
        data = self.train(train, [code] * 50, TrainingConfig(size=600))
        assert pieces(data, code) == ["def", " f", "():\n", " " * 7, " return", " None", "\n"]

    def test_vowel_signs_stay_with_their_letters(self, train: Train) -> None:
        data = self.train(train, ["दुनिया"] * 50, TrainingConfig(size=600))
        assert pieces(data, "दुनिया") == ["दुनिया"]

    def test_no_entry_is_longer_than_asked(self, train: Train) -> None:
        data = self.train(train, ["abcdefghijklmnop" * 2] * 50, TrainingConfig(size=600, max_token_bytes=4))
        assert pieces(data, "abcdefghijklmnop") == ["abcd", "efgh", "ijkl", "mnop"]

    def test_rare_pairs_are_not_merged(self, train: Train) -> None:
        data = self.train(train, ["zq kk", "kk"], TrainingConfig(size=600, min_frequency=2))
        assert pieces(data, "zq") == ["z", "q"]
        assert pieces(data, "kk") == ["kk"]

    def test_a_small_corpus_gives_fewer_entries(self, train: Train) -> None:
        vocabulary = describe_tokenizer(self.train(train, ["aaaa aaaa"], TrainingConfig(size=32_768)))
        assert 257 < vocabulary.size < 265
        assert (vocabulary.padded_size, vocabulary.dtype, vocabulary.end_of_document) == (384, "uint16", 0)

    def test_special_tokens_have_the_first_ids_and_are_never_text(self, train: Train) -> None:
        config = TrainingConfig(size=300, special_tokens=("<|fim_prefix|>", "<|pad|>"))
        data = self.train(train, ["a <|fim_prefix|> b <|endoftext|>"] * 50, config)
        tokenizer = Tokenizer.from_str(data.decode())
        assert [tokenizer.id_to_token(i) for i in range(4)] == ["<|endoftext|>", "<|fim_prefix|>", "<|pad|>", "!"]
        encoder = Encoder(TokenizerFile(data, describe_tokenizer(data)), fast=False)
        ids = encoder.encode(pa.array(["a <|fim_prefix|><|pad|> b <|endoftext|>"])).ids
        assert min(ids) > 2
        assert encoder.decode(ids) == "a <|fim_prefix|><|pad|> b <|endoftext|>"


class TestChoice:
    """The kernels work where they agree with Hugging Face's trainer on the head of the corpus, and only there."""

    @pytest.fixture
    def runs(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Sizes of the corpora that the kernels trained on."""
        sizes: list[int] = []

        def spy(batches: list[pa.StringArray], config: TrainingConfig) -> bytes:
            held = list(batches)
            sizes.append(sum(map(len, held)))
            return train_by_kernels(held, config)

        monkeypatch.setattr(training, "train_by_kernels", spy)
        monkeypatch.setattr(training, "CHECKED_BYTES", 500)
        return sizes

    def test_a_larger_corpus_is_theirs(self, runs: list[int]) -> None:
        config = TrainingConfig(size=400)
        data = train_tokenizer((pa.array(CORPUS) for _ in range(3)), config)
        assert runs[1:] == [3 * len(CORPUS)]
        assert data == train_by_reference([pa.array(CORPUS)] * 3, config)

    def test_a_small_one_is_not(self, runs: list[int]) -> None:
        train_tokenizer([pa.array(["a few words"])], TrainingConfig(size=300))
        assert runs == []

    def test_a_word_of_a_million_letters_takes_neither_minutes_nor_gigabytes(self) -> None:
        word = "".join(random.Random(2).choices("acgt", k=1_000_000))
        data = train_tokenizer([pa.array([word, "a few words"])], TrainingConfig(size=300))
        assert len(pieces(data, word[:1000])) < 600

    @pytest.mark.parametrize("fault", ["differs", "raises"])
    def test_one_that_errs_is_not_used(self, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
        def errs(batches: list[pa.StringArray], config: TrainingConfig) -> bytes:
            if fault == "raises":
                raise RuntimeError("no kernel for this processor")
            return train_by_reference(batches, config)[:-1]

        monkeypatch.setattr(training, "train_by_kernels", errs)
        monkeypatch.setattr(training, "CHECKED_BYTES", 500)
        config = TrainingConfig(size=400)
        assert train_tokenizer([pa.array(CORPUS)], config) == train_by_reference([pa.array(CORPUS)], config)


def test_bytes_do_not_depend_on_threads_or_on_the_cut(tmp_path: Path) -> None:
    program = (
        "import sys, pyarrow as pa; from tests.tokenizer.conftest import CORPUS; from tokenizer.training import *;"
        "step = int(sys.argv[1]); texts = CORPUS * 220;"
        "batches = (pa.array(texts[i:i + step]) for i in range(0, len(texts), step));"
        "sys.stdout.buffer.write(train_tokenizer(batches, TrainingConfig(size=900)))"
    )
    written = {
        subprocess.run(
            [sys.executable, "-c", program, step],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": parallel},
            capture_output=True,
            check=True,
        ).stdout
        for threads, parallel, step in (("1", "false", "100000"), ("5", "true", "7"))
    }
    assert written == {train_by_reference([pa.array(CORPUS * 220)], TrainingConfig(size=900))}


@pytest.mark.parametrize("texts", [[], [pa.array(["", None])]])
def test_no_text_is_refused(texts: list[pa.StringArray]) -> None:
    with pytest.raises(InputError, match="no text to train"):
        train_tokenizer(texts, TrainingConfig(size=600))


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        (TrainingConfig(size=200), "200 entries cannot hold .* '<.endoftext.>'"),
        (TrainingConfig(size=258, special_tokens=("a1", "b2")), "258 entries cannot hold"),
        (TrainingConfig(special_tokens=("<x>", "<x>")), "not distinct"),
        (TrainingConfig(special_tokens=("<|endoftext|>",)), "not distinct"),
        (TrainingConfig(special_tokens=("",)), "empty"),
        (TrainingConfig(max_digits=0), "0 digits"),
        (TrainingConfig(max_token_bytes=1), "1 bytes at most cannot"),
    ],
)
def test_what_cannot_be_trained_is_refused(config: TrainingConfig, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        train_tokenizer([pa.array(["a"])], config)


def test_lists_that_are_cleared_out_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on large corpora: lists are full again and again, and pairs that occur no more have lost theirs."""
    cleared: list[int] = []
    clear = merges._Trainer._drop_lists

    def often(self: merges._Trainer) -> None:
        cleared.append(len(self.pairs.lists))
        clear(self)
        used = int(self.state[pair_kernels.NUM_LISTED]) + int(
            self.pairs.touched[: self.state[pair_kernels.NUM_TOUCHED], 1].sum()
        )
        self.pairs = self.pairs._replace(lists=self.pairs.lists[: used + 50].copy())

    monkeypatch.setattr(merges._Trainer, "_drop_lists", often)
    dice = random.Random(9)
    roots = ["".join(dice.choices("abcdeé中", k=dice.randrange(2, 9))) for _ in range(3000)]
    texts = [" ".join(dice.choices(roots, k=6000)) + " " + "ab" * 50]
    for config in (TrainingConfig(size=2000), TrainingConfig(size=50_000, min_frequency=0)):
        trainer_input = [pa.array(texts)]
        monkeypatch.setattr(merges, "FIRST_LISTS", 100)
        assert train_by_kernels(trainer_input, config) == train_by_reference(trainer_input, config)
    assert len(cleared) > 20
