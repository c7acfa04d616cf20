"""A token classifier made here, with weights set so that what it finds is known."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from classifiers.encoders.models import find_model
from classifiers.privacy.entities import ENTITY_COLUMNS, EntityConfig, entities_stage, kind_of
from pipelines.stages import measuring_stages, rewriting_stages
from storage.errors import ModelError

LABELS = {0: "O", 1: "B-PER", 2: "I-LOC"}
PERSON, PLACE = "maria", "berlin"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT that looks at the word alone: `maria` is a person, `berlin` a place."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForTokenClassification

    folder = tmp_path_factory.mktemp("entities")
    (folder / "tokenizer.json").write_bytes((find_model().folder / "tokenizer.json").read_bytes())
    sizes = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4}
    config = BertConfig(vocab_size=30522, max_position_embeddings=64, id2label=LABELS, **sizes)
    config.save_pretrained(folder)
    words = AutoTokenizer.from_pretrained(folder)
    made = BertForTokenClassification(config)
    with torch.no_grad():
        for weights in made.parameters():
            weights.zero_()
        for norm in (made.bert.embeddings.LayerNorm, *(m for m in made.modules() if isinstance(m, torch.nn.LayerNorm))):
            norm.weight.fill_(1.0)
        table = made.bert.embeddings.word_embeddings.weight
        table[:, 3] = 1.0
        for row, word in enumerate((PERSON, PLACE)):
            (token,) = words.convert_tokens_to_ids([word])
            table[token] = torch.eye(4)[row]
        made.classifier.weight.copy_(8 * torch.eye(4)[torch.tensor([3, 0, 1])])
    made.save_pretrained(folder)
    return folder


def measure(model: Path, texts: list[str], **config: int) -> pa.RecordBatch:
    stage = entities_stage(str(model), EntityConfig(**config))  # type: ignore[arg-type]
    return stage.make(stage.config)(pa.record_batch({"text": pa.array(texts)}))


def finds(model: Path, text: str) -> list[tuple[str, str]]:
    (row,) = measure(model, [text]).to_pylist()
    return [(span["kind"], text.encode()[span["start"] : span["end"]].decode()) for span in row["spans"]]


def test_entities_are_found_where_they_stand(model: Path) -> None:
    assert finds(model, "今天 Maria went to Berlin.") == [("person", "Maria"), ("address", "Berlin")]
    assert finds(model, "nobody") == []


def test_a_long_text_is_read_in_windows(model: Path) -> None:
    text = ("and so on " * 40 + "Maria ") * 5
    assert finds(model, text) == [("person", "Maria")] * 5


def test_rows_do_not_depend_on_each_other(model: Path) -> None:
    texts = ["Maria", "", "in Berlin, with Maria " * 30, "nothing"]
    together = measure(model, texts)
    alone = pa.Table.from_batches([measure(model, [text]) for text in texts])
    assert together.schema == ENTITY_COLUMNS and pa.Table.from_batches([together]).combine_chunks().equals(
        alone.combine_chunks()
    )
    assert together.column("person").to_pylist() == [1, 0, 30, 0]


def test_what_is_not_read_is_said(model: Path) -> None:
    row = measure(model, ["Maria " * 10], max_chars=12).to_pylist()[0]
    assert row["person"] == 1 and not row["is_complete"]


def test_entities_are_masked_with_the_rest(model: Path) -> None:
    (stage,) = rewriting_stages([f"mask_privacy:entities={model}"])
    batch = pa.record_batch(
        {"text": ["今天 Maria (maria@mill.com) in Berlin", "nobody"], "url": pa.nulls(2, pa.string())}
    )
    made = stage.make(stage.config)(batch)
    assert made.column("text").to_pylist() == ["今天 <PERSON> (<EMAIL>) in <ADDRESS>", "nobody"]
    assert made.to_pylist()[0]["person"] == 1 and stage.identity() != rewriting_stages(["mask_privacy"])[0].identity()


def test_the_stage_is_there_for_those_who_name_a_model(model: Path) -> None:
    names = [stage.name for stage in measuring_stages(entity_model=str(model))]
    assert names == [*(stage.name for stage in measuring_stages()), "entities"]


@pytest.mark.parametrize(
    ("label", "kind"), [("B-PER", "person"), ("I-GPE", "address"), ("ORG", "organisation"), ("O", None), ("MISC", None)]
)
def test_labels(label: str, kind: str | None) -> None:
    assert kind_of(label) == kind


def test_a_model_with_pickled_weights_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((model / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match="pickle"):
        entities_stage(str(tmp_path))
