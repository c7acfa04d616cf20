"""What the kernels know by name: tags, namespaces, prefixes of other wikis, templates that carry words, entities."""

from __future__ import annotations

import functools
import html.entities
from collections.abc import Iterator

import numpy as np

from sources.wikitext.inline import TEMPLATE_NAMES, TEMPLATE_PREFIXES
from sources.wikitext.names import ENTITY, NAMESPACE, TAG, TEMPLATE, Keys, Values, name_table
from sources.wikitext.structure import (
    BLOCK,
    BREAK,
    CATEGORY,
    DROPPED,
    FILE,
    FORMULA,
    INLINE,
    INTERWIKI,
    LITERAL,
    NAMED,
    PREFIXED,
)  # fmt: skip

FILE_NAMESPACES = frozenset(
    """file image media datei bild fichier archivo imagen ficheiro imagem immagine bestand afbeelding plik grafika файл
    изображение fil tiedosto kuva soubor fájl kép fișier imagine datoteka slika dosya resim ملف صورة پرونده تصویر קובץ
    תמונה ファイル 画像 파일 그림 文件 檔案 档案 图像 圖像 चित्र ছবি ไฟล์ tập_tin hình berkas gambar fails vaizdas
    attēls fitxer imatge fitxategi irudi αρχείο εικόνα зображення датотека слика""".split()
)
CATEGORY_NAMESPACES = frozenset(
    """category kategorie catégorie categoría categoria kategoria категория kategori luokka kategória categorie
    kategorija تصنيف رده קטגוריה カテゴリ 분류 分类 分類 श्रेणी বিষয়শ্রেণী หมวดหมู่ thể_loại kategoreja
    κατηγορία категорія катэгорыя категорија kategooria flokkur catagóir""".split()
)
INTERWIKIS = (
    "w wikt s b q n v c d m mw meta commons wiktionary wikipedia wikisource wikiquote species wikibooks wikinews"
).split()
_TAGS = {
    DROPPED: """ref references gallery timeline imagemap score mapframe maplink graph templatestyles hiero section
        inputbox categorytree indicator includeonly rss quiz choose charinsert phonos templatedata languages listing
        style script""",
    FORMULA: "math chem ce",
    BLOCK: "pre syntaxhighlight source",
    LITERAL: "nowiki",
    BREAK: """br p div li ul ol tr td th table center blockquote h1 h2 h3 h4 h5 h6 hr dl dt dd poem caption thead
        tbody""",
    INLINE: """b i u s em strong small big sub sup span font tt code kbd samp var cite del ins strike abbr q bdi bdo
        wbr dfn mark data time ruby rb rt rp rtc col colgroup noinclude onlyinclude translate tvar a img""",
}
NUM_TAGS = sum(len(names.split()) for names in _TAGS.values())


@functools.cache
def structure_table(hidden_namespaces: frozenset[str]) -> tuple[Keys, Values]:
    """Names that the first pass looks up; `hidden_namespaces` are a wiki's own, whose links are not shown."""
    return name_table(_structure_names(hidden_namespaces))


def _structure_names(hidden_namespaces: frozenset[str]) -> Iterator[tuple[int, str, int]]:
    tags = [(name, kind) for kind, names in _TAGS.items() for name in names.split()]
    yield from ((TAG, name, kind | number << 4) for number, (name, kind) in enumerate(tags))
    yield from ((NAMESPACE, name, FILE) for name in FILE_NAMESPACES)
    yield from ((NAMESPACE, name, CATEGORY) for name in CATEGORY_NAMESPACES | hidden_namespaces)
    yield from ((NAMESPACE, name, INTERWIKI) for name in INTERWIKIS)
    yield from ((TEMPLATE, name, NAMED) for name in TEMPLATE_NAMES)
    yield from ((TEMPLATE, name, PREFIXED) for name in TEMPLATE_PREFIXES)


@functools.cache
def entity_table() -> tuple[Keys, Values, Values]:
    """HTML's named characters; a value is the place of its one or two code points, two places each."""
    names = {name[:-1]: text for name, text in html.entities.html5.items() if name.endswith(";")}
    codes = np.zeros(2 * len(names), np.int64)
    for number, text in enumerate(names.values()):
        codes[2 * number : 2 * number + len(text)] = [ord(character) for character in text]
    keys, values = name_table((ENTITY, name, number) for number, name in enumerate(names))
    return keys, values, codes
