"""What kind of page an article is, by the templates that its wiki marks it with: article, disambiguation or stub.

Names of the large wikis' templates and of their short forms; the categories that such templates put a page into stand
in it where the template was substituted. Looked for where they stand: the first 2,000 and the last 8,000 bytes, 15 µs.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

PageKind = Literal["article", "disambiguation", "stub"]

_HEAD_BYTES, _TAIL_BYTES = 2_000, 8_000
_NAMES = 1 << 12
"""Names whose kind is remembered: most pages have the templates and categories of others."""
_COMMENT = re.compile("<!--.*?-->", re.DOTALL)
_TEMPLATE = re.compile(r"\{\{\s*+([^{}|\n<]{1,60})")
_CATEGORY = re.compile(r"\[\[\s*+[^\W\d_]{3,20}:([^\]|\n]{1,100})")


def _names(listed: str) -> frozenset[str]:
    return frozenset(" ".join(name.split()) for name in listed.split(","))


_DISAMBIGUATIONS = _names("""
    disambig, disambiguation, disamb, dab, disambig-cleanup, disambiguation cleanup, geodis, geodab, hndis,
    human name disambiguation, hndis-cleanup, place name disambiguation, numberdis, mil-unit-dis, airport
    disambiguation, school disambiguation, hospital disambiguation, church disambiguation, road disambiguation,
    roaddis, letter disambiguation, letter-numbercombdisambig, letter-number combination disambiguation,
    callsigndis, call sign disambiguation, mathdab, mathematical disambiguation, chinese title disambiguation,
    species latin name disambiguation, species latin name abbreviation disambiguation, taxonomic authority
    disambiguation, taxonomy disambiguation, wp disambig, begriffsklärung, bkl, homonymie, homonyme, paronymie,
    patronymie, toponymie, sigle, desambiguación, desambiguacion, disambigua,
    desambiguação, doorverwijspagina, dp, ujednoznacznienie, неоднозначность, многозначность,
    неоднозначность-однофамильцы, однофамильцы, список однофамильцев, неоднозначність, багатозначність,
    багатозначні терміни, förgrening, gren, grensida, peker, pekerside, flertydig, täsmennyssivu, rozcestník,
    rozlišovacia stránka, egyért, dezambiguizare, anlam ayrımı, anlamayrımı, توضيح, صفحة توضيح, ابهام‌زدایی,
    ابهام زدایی, פירושונים, aimai, 曖昧さ回避, 人名の曖昧さ回避, 地名の曖昧さ回避, 動詞の曖昧さ回避,
    同名の人物, 동음이의, 동음이의어, 消歧义, 消歧義, 消歧义页,
    消歧義頁, 消歧義页, 地名消歧义, 地名消歧義, 人名消歧义, 人名消歧義, định hướng, trang định hướng,
    disambiguasi, แก้กำกวม, αποσαφήνιση,
    desambiguació, argipen, nozīmju atdalīšana, nuorodinis straipsnis, nuorodinis, täpsustuslehekülg, täpsustus,
    пояснение, вишезначна одредница, višeznačna odrednica, razdvojba, razločitev, बहुविकल्पी, দ্ব্যর্থতা নিরসন
""")  # fmt: skip
_STUBS = _names("""
    stub, stubb, substub, ébauche, esbozo, abbozzo, esboço, esboço2, mínimo, beginnetje, zalążek, заготовка,
    незавершённая статья, spire, tynkä, pahýl, výhonok, csonk, ciot, taslak, بذرة, خرد, קצרמר, スタブ, 토막글,
    小作品,
    小小作品, sơ khai, rintisan, โครง, esborrany, επέκταση, aizmetnis, iesākums, мъниче, клица, mrva, škrbina,
    zirriborro, आधार, অসম্পূর্ণ
""")  # fmt: skip
_STUB_STARTS = (
    "ébauche ", "esboço-", "بذرة ", "sơ khai ", "csonk-", "ciot-", "tynkä/", "โครง", "beginnetje/", "stub ",
    "stub-",
)  # fmt: skip
_STUB_ENDS = ("-stub", " stub", "-taslak", "-мъниче", "-клица", "-aizmetnis")
_NO_STUBS = frozenset(["section stub", "section-stub", "sect-stub", "list-stub"])
_DISAMBIGUATION_WORDS = (
    "disambig",
    "begriffsklärung",
    "homonymie",
    "desambigua",
    "неоднозначност",
    "曖昧さ回避",
    "消歧",
)
_STUB_WORDS = (" stubs", "-stubs")


def page_kind(wikitext: bytes) -> PageKind:
    """The kind by the templates, switches and categories of a page's markup; disambiguation wins over stub."""
    if len(wikitext) > _HEAD_BYTES + _TAIL_BYTES:
        wikitext = wikitext[:_HEAD_BYTES] + b"\n" + wikitext[-_TAIL_BYTES:]
    text = wikitext.decode("utf-8", "ignore")
    if "<!--" in text:
        text = _COMMENT.sub("", text)
    kinds = {_template_kind(name) for name in _TEMPLATE.findall(text)}
    kinds |= {_category_kind(name) for name in _CATEGORY.findall(text)}
    if "disambiguation" in kinds or "__DISAMBIG__" in text:
        return "disambiguation"
    return "stub" if "stub" in kinds else "article"


@lru_cache(maxsize=_NAMES)
def _template_kind(name: str) -> PageKind:
    name = " ".join(name.replace("_", " ").split()).lower()
    if name in _DISAMBIGUATIONS:
        return "disambiguation"
    marked = name in _STUBS or (name.startswith(_STUB_STARTS) or name.endswith(_STUB_ENDS)) and name not in _NO_STUBS
    return "stub" if marked else "article"


@lru_cache(maxsize=_NAMES)
def _category_kind(name: str) -> PageKind:
    name = name.replace("_", " ").lower()
    if any(word in name for word in _DISAMBIGUATION_WORDS):
        return "disambiguation"
    return "stub" if name.endswith(_STUB_WORDS) else "article"
