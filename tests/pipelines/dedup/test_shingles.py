"""Scanning and signatures against the plain implementation, over the whole of Unicode."""

from __future__ import annotations

import random
import sys
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup.characters import character_tables
from pipelines.dedup.columns import string_buffers
from pipelines.dedup.hashing import permutations
from pipelines.dedup.kernels import collect_shingles, find_uncomposed
from pipelines.dedup.parameters import SignatureConfig
from pipelines.dedup.reference import jaccard, make_shingles, normalise_text
from pipelines.dedup.signatures import normalise, sign_documents, signature_stage
from pipelines.dedup.verify import read_shingles
from tests.pipelines.dedup.dedup_corpora import corpus

WORDS = SignatureConfig()
SINGLE = SignatureConfig(shingle_size=1)
CHARACTERS = SignatureConfig(unit="characters")


def signed(texts: list[str | None], config: SignatureConfig = WORDS) -> dict[str, list[object]]:
    return sign_documents(corpus(texts), config).to_pydict()


def kernel_sets(texts: list[str], config: SignatureConfig) -> list[set[int]]:
    tables = character_tables()
    words = config.unit == "words"
    offsets, values = collect_shingles(
        *normalise(pa.array(texts)), words, config.shingle_size, tables.kinds, tables.lower
    )
    return [set(values[a:b].tolist()) for a, b in zip(offsets[:-1], offsets[1:], strict=True)]


def test_every_code_point_parts_words_as_the_plain_implementation_has_it() -> None:
    texts = [f"a{chr(c)}b" for c in range(1, sys.maxunicode + 1) if not 0xD800 <= c < 0xE000 and _is_known(c)]
    assert len(texts) > 140_000
    counts = signed(texts, SINGLE)["num_shingles"]
    wrong = [text for text, count in zip(texts, counts, strict=True) if count != len(make_shingles(text, SINGLE))]
    assert wrong == []


def _is_known(code: int) -> bool:
    return unicodedata.category(chr(code)) not in ("Cn", "Co")


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.text(max_size=60), min_size=1, max_size=6), st.integers(1, 6), st.sampled_from(["words", "characters"])
)
def test_shingles_are_those_of_the_plain_implementation(texts: list[str], size: int, unit: str) -> None:
    config = SignatureConfig(unit=unit, shingle_size=size, bands=2, rows=2)  # type: ignore[arg-type]
    plain = [make_shingles(text, config) for text in texts]
    hashed = kernel_sets(texts, config)
    assert [len(s) for s in hashed] == [len(s) for s in plain] == signed(texts, config)["num_shingles"]
    for i in range(len(texts)):
        for j in range(i):
            assert len(hashed[i] & hashed[j]) == len(plain[i] & plain[j])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Straße ÜBER Ärger", "straße über ärger"),
        ("ОБЪЕКТ ΔΕΛΤΑ", "объект δελτα"),
        ("e\u0301te\u0301", "\u00e9t\u00e9"),
        ("co\u00adoperate", "cooperate"),
        ("\uff21\uff22\uff23", "\uff41\uff42\uff43"),
        ("\ud55c\uad6d", "\u1112\u1161\u11ab\u1100\u116e\u11a8"),
        ("one,two", "One -- two!"),
        ("one \u20d2two", "one two"),
        ("x\u0315\u0316 y", "x\u0316\u0315 y"),
    ],
)
def test_texts_that_differ_in_case_composition_or_punctuation_only_share_all_shingles(one: str, other: str) -> None:
    first, second = signed([one, other])["bands"]
    assert first == second is not None


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("我爱北京天安门", 7),
        ("2024年我们used GPT-4。", 7),
        ("カタカナとひらがな", 8),
        ("\u0e01\u0e34\u0e19\u0e02\u0e49\u0e32\u0e27", 5),  # กินข้าว: five letters, two marks that stay with them
        ("नमस्ते दुनिया", 2),
        ("don’t stop", 3),
        ("x\u200by", 2),
        ("x\u200dy", 1),
        ("🎉🎉 —", 0),
    ],
)
def test_scripts_are_cut_by_their_own_rules(text: str, tokens: int) -> None:
    assert signed([text], SINGLE)["num_shingles"] == [tokens] == [len(make_shingles(text, SINGLE))]


def test_a_text_shorter_than_the_shingle_is_one_shingle_of_its_own() -> None:
    result = signed(["two words", "two other", "one", "Two words."])
    assert result["num_shingles"] == [1, 1, 1, 1]
    keys = [set(bands) for bands in result["bands"]]  # type: ignore[union-attr]
    assert keys[0] == keys[3] and not keys[0] & keys[1] and not keys[0] & keys[2]


def test_texts_without_words_have_a_hash_and_no_bands_and_null_texts_have_neither() -> None:
    result = signed(["", " \n", "!!! ...", None, "word"])
    assert result["num_shingles"] == [0, 0, 0, 0, 1]
    assert [bands is None for bands in result["bands"]] == [True, True, True, True, False]
    assert [h is None for h in result["content_hash"]] == [False, False, False, True, False]


@settings(max_examples=100, deadline=None)
@given(
    st.text(alphabet=st.sampled_from("aé\u0301\u0327 \n\t\u00a0\u3000\u1112\u1161B"), max_size=12), st.text(max_size=12)
)
def test_normalised_is_nfc_with_single_spaces(odd: str, text: str) -> None:
    texts = [odd, text, odd + text]
    offsets, data = normalise(pa.array(texts))
    assert [bytes(data[a:b]).decode() for a, b in zip(offsets[:-1], offsets[1:], strict=True)] == [
        normalise_text(each) for each in texts
    ]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=8))
def test_quick_check_never_misses_a_text_that_nfc_changes(text: str) -> None:
    tables = character_tables()
    found = find_uncomposed(*string_buffers(pa.array([text])), tables.kinds, tables.combining)
    assert found[0] or unicodedata.is_normalized("NFC", text)


def test_quick_check_finds_marks_out_of_order() -> None:
    tables = character_tables()
    texts = pa.array(["x\u0316\u0315", "x\u0315\u0316", "\u0315x\u0316"])
    assert find_uncomposed(*string_buffers(texts), tables.kinds, tables.combining).tolist() == [False, True, False]


def test_quick_check_finds_every_single_character_that_nfc_changes() -> None:
    changed = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]
    changed = [c for c in changed if not unicodedata.is_normalized("NFC", c)]
    tables = character_tables()
    assert len(changed) > 1000
    assert find_uncomposed(*string_buffers(pa.array(changed)), tables.kinds, tables.combining).all()


def test_signatures_do_not_depend_on_slices_batches_or_string_type() -> None:
    chance = random.Random(3)
    texts = [
        " ".join(chance.choice(["ab", "Ä", "中文", "x9", "e\u0301"]) for _ in range(chance.randrange(30)))
        for _ in range(50)
    ]
    whole = sign_documents(corpus(texts), WORDS)
    table = corpus(["padding", *texts], ["padding", *range(50)])
    pieces = pa.concat_tables([table.slice(1, 7), table.slice(8, 1), table.slice(9)])
    assert sign_documents(pieces, WORDS).equals(whole)
    large = pieces.set_column(1, "text", pieces["text"].cast(pa.large_string()))
    assert sign_documents(large, WORDS).equals(whole)


def test_signature_stage_writes_its_schema_row_for_row() -> None:
    stage = signature_stage(WORDS)
    batch = corpus(["some words stand here now", "", None]).to_batches()[0]
    signed_batch = stage.make(stage.config)(batch)
    assert signed_batch.schema == stage.writes
    assert signed_batch.column("doc_id").equals(batch.column("doc_id"))
    assert stage.identity() != signature_stage(SignatureConfig(seed=2)).identity()


def test_share_of_equal_minima_estimates_the_jaccard_similarity() -> None:
    chance = random.Random(11)
    words = [f"w{chance.randrange(10**6)}" for _ in range(400)]
    config = SignatureConfig(bands=1024, rows=1)
    for cut in (390, 300, 150):
        one, other = " ".join(words), " ".join(words[:cut] + [f"v{i}" for i in range(400 - cut)])
        first, second = (np.array(bands) for bands in signed([one, other], config)["bands"])
        truth = jaccard(make_shingles(one, config), make_shingles(other, config))
        assert (first == second).mean() == pytest.approx(truth, abs=0.05)  # 3 standard deviations of 1,024 draws


def test_broken_utf8_is_scanned_without_reading_past_its_end() -> None:
    pieces = [b"\xe4\xb8", b"ok \xf0\x9f", b"\xff\xfe\xf8\x88\x80\x80\x80 word", b"\x80\x80", b"\xf7\xbf\xbf\xbf fine"]
    broken = pa.array(pieces, pa.binary()).view(pa.string())
    table = pa.table({"doc_id": corpus([""] * len(pieces))["doc_id"], "text": broken})
    assert sign_documents(table, SINGLE)["num_shingles"].to_pylist() == [0, 1, 1, 0, 1]


def test_a_text_too_large_for_the_hash_table_has_the_same_distinct_shingles() -> None:
    text = " ".join(f"w{i % 70_000}" for i in range(140_000))
    assert signed([text], SINGLE)["num_shingles"] == [70_000]


def test_permutations_are_fixed_by_the_seed_and_are_permutations() -> None:
    multipliers, addends = permutations(1, 112)
    assert (multipliers & np.uint32(1)).all() and len(set(multipliers.tolist())) == 112
    # SplitMix64 from seed 1234567: its published first output.
    assert permutations(1234567, 1)[0][0] == 6457827717110365317 >> 32 | 1
    assert not np.array_equal(addends, permutations(2, 112)[1])


def test_read_shingles_gives_each_group_the_rows_that_it_wants() -> None:
    from pipelines.dedup.shuffle import places
    from pipelines.dedup.verify import SHINGLES, WANTED

    texts = ["a b c d e f", "g h i j k", "l m n o p q r"]
    wanted = pa.table([[4, 4, 4], [1, 0, 1], places(4, np.array([0, 2, 2]))], schema=WANTED)
    table = pa.Table.from_batches(read_shingles(corpus(texts), wanted, WORDS), schema=SHINGLES)
    assert table["range"].to_pylist() == [0, 1, 1]
    sets = [np.frombuffer(shingles, np.uint64).tolist() for shingles in table["shingles"].to_pylist()]
    assert [len(set(shingles)) for shingles in sets] == [len(shingles) for shingles in sets] == [3, 2, 3]
