"""`gristmill shards …`: check, show, join, cut and read token shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
import numpy as np
import pyarrow as pa

from mixtures.packed import pack_mixture
from mixtures.select import BLEND
from mixtures.verify import verify_mixture
from pipelines.document_map import LEVELS, doc_ids_of, find_shard, find_tokenizer
from storage.commit import atomic_path, exclusive
from storage.errors import InputError
from storage.manifests import find_manifest
from storage.megatron import IndexedReader, bin_path, idx_path, prefix_of
from storage.shards import ShardSummary, check_shard, merge_shards, read_batches, split_shard
from tokenizer.encode import Encoder
from tokenizer.store import open_store
from tokenizer.verify import verify_store
from tokenizer.vocabulary import TokenizerFile, load_tokenizer

Decode = Callable[[Sequence[int]], str]


def verify_command(places: Sequence[Path], tokenizer: Path | None, end_of_document: str | None) -> None:
    """Check each place; the first that is damaged raises."""
    given = load_tokenizer(tokenizer, end_of_document=end_of_document) if tokenizer else None
    for place in places:
        if find_manifest(place) is not None:
            store = verify_store(open_store(place))
            click.echo(f"{place}: {store.sequences:,} documents, {store.tokens:,} tokens in {store.parts} parts")
        elif (place / BLEND).exists():
            for prefix, summary in verify_mixture(place).items():
                click.echo(f"{place / prefix}: {_summed(summary)}")
        else:
            click.echo(f"{prefix_of(place)}: {_verify_shard(prefix_of(place), given)}")


def _verify_shard(prefix: Path, given: TokenizerFile | None) -> str:
    found = given or _tokenizer_of(prefix)
    if found is None:
        return f"{_summed(check_shard(prefix))}; no tokenizer beside it to check the ids with"
    vocabulary = found.vocabulary
    return _summed(check_shard(prefix, size=vocabulary.size, end_of_document=vocabulary.end_of_document))


def _summed(summary: ShardSummary) -> str:
    repeated = summary.tokens - summary.distinct_tokens
    told = f", {repeated:,} of them repeats" if repeated else ""
    return f"{summary.documents:,} documents, {summary.tokens:,} tokens{told}, ids to {summary.highest_id}"


def inspect_command(path: Path, tokenizer: Path | None, *, start: int, tokens: int, ids: bool) -> None:
    """What the pair is, then the text of the range, a line a document."""
    prefix = prefix_of(path)
    reader, found = IndexedReader(prefix), _tokenizer(prefix, tokenizer)
    decode = Encoder(found, fast=False).decode if found else None
    click.echo(f"{len(reader):,} sequences, {len(reader.documents) - 1:,} documents, {reader.num_tokens:,} tokens")
    size = bin_path(prefix).stat().st_size
    linked = f", a link to {bin_path(prefix).resolve()}" if bin_path(prefix).is_symlink() else ""
    click.echo(f"{reader.dtype.name} ids, {size:,} bytes{linked}")
    for line in _shown(reader, start, tokens, decode, ids):
        click.echo(line)


def _shown(reader: IndexedReader, start: int, tokens: int, decode: Decode | None, ids: bool) -> Iterator[str]:
    if not 0 <= start < max(1, reader.num_tokens) or tokens < 0:
        raise InputError(
            f"tokens {start:,} to {start + tokens:,} are not in this shard",
            at=str(reader.prefix),
            hint=f"it has {reader.num_tokens:,}, counted from 0",
        )
    if not reader.num_tokens:
        return
    sequence, skipped = reader.find_token(start)
    left = min(tokens, reader.num_tokens - start)
    while left > 0:
        count = min(left, int(reader.lengths[sequence]) - skipped)
        piece = reader.read(sequence, skipped, count)
        yield f"sequence {sequence:,}, tokens {skipped:,} to {skipped + count:,} of {reader.lengths[sequence]:,}"
        if decode:
            yield f"  {decode(piece.tolist())!r}"
        if ids or not decode:
            yield f"  {' '.join(map(str, piece.tolist()))}"
        sequence, skipped, left = sequence + 1, 0, left - count


def merge_command(target: Path, prefixes: Sequence[Path]) -> None:
    _require_new(target)
    joined = merge_shards(target, [prefix_of(prefix) for prefix in prefixes])
    click.echo(f"{len(joined.documents) - 1:,} documents, {joined.num_tokens:,} tokens in {target}")


def split_command(target: Path, path: Path, tokens: int) -> None:
    _require_new(target.with_name(f"{target.name}-0000"))
    for piece in split_shard(target, prefix_of(path), tokens):
        click.echo(f"{IndexedReader(piece).num_tokens:,} tokens in {piece}")


def _require_new(prefix: Path) -> None:
    for file in (bin_path(prefix), idx_path(prefix)):
        if file.exists():
            raise InputError(f"`{file.name}` is there already", at=str(prefix), hint="name a new shard")


def pack_command(target: Path, mixture: Path, length: int | None) -> None:
    """Pack a mixture, and say what was saved."""
    report = pack_mixture(target, mixture, length)
    click.echo(f"{report.documents:,} documents in {report.sequences:,} sequences, written to {target}")
    for told, count in (("packed", report.cut), ("concatenated", report.cut_unpacked)):
        click.echo(f"{told:<13} {count:>12,} documents cut, {100 * count / max(1, report.documents):.2f} %")
    click.echo(f"{'padding':<13} {report.padding:>12,} tokens, {100 * report.padding / max(1, report.tokens):.4f} %")


def arrow_command(target: Path, path: Path, tokenizer: Path | None, *, with_text: bool) -> None:
    """Write the shard's sequences as an Arrow stream, the form that `datasets` maps into memory."""
    prefix = prefix_of(path)
    reader = IndexedReader(prefix)
    decode = _decoder(prefix, tokenizer) if with_text else None
    with exclusive(target), atomic_path(target) as temporary:
        batches = _described(prefix, reader, decode)
        first = next(batches)
        with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_stream(file, first.schema) as writer:
            writer.write_batch(first)
            for batch in batches:
                writer.write_batch(batch)
    click.echo(f"{len(reader):,} rows written; `datasets.Dataset.from_file({str(target)!r})` opens them")


def _decoder(prefix: Path, tokenizer: Path | None) -> Decode:
    found = _tokenizer(prefix, tokenizer)
    if found is None:
        raise InputError("no tokenizer stands beside this shard", at=str(prefix), hint="name it: `--tokenizer PATH`")
    return Encoder(found, fast=False).decode


def _described(prefix: Path, reader: IndexedReader, decode: Decode | None) -> Iterator[pa.RecordBatch]:
    """The shard's batches, with texts where they are asked for and with doc_ids where they are known."""
    doc_ids = doc_ids_of(shard) if (shard := find_shard(prefix)) else None
    start = 0
    for batch in read_batches(reader):
        if doc_ids is not None:
            batch = batch.append_column("doc_id", doc_ids.slice(start, batch.num_rows))
        start += batch.num_rows
        yield _with_text(batch, decode) if decode else batch


def _with_text(batch: pa.RecordBatch, decode: Decode) -> pa.RecordBatch:
    tokens = batch.column("tokens")
    ids, offsets = np.asarray(tokens.values), np.asarray(tokens.offsets)
    texts = [decode(ids[a:b].tolist()) for a, b in zip(offsets, offsets[1:], strict=False)]
    return batch.append_column("text", pa.array(texts, pa.large_string()))


def _tokenizer(prefix: Path, given: Path | None) -> TokenizerFile | None:
    return load_tokenizer(given) if given else _tokenizer_of(prefix)


def _tokenizer_of(prefix: Path) -> TokenizerFile | None:
    return next((found for home in prefix.absolute().parents[:LEVELS] if (found := find_tokenizer(home))), None)
