"""Wikitext to what a reader sees: each rule once, then linear time, then real dumps."""

from __future__ import annotations

import bz2
import random
import re
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.wikitext import PlainText, Site, to_text

SITE = Site()
PLAIN = PlainText(SITE)
RULES = {
    "comment": ("a<!-- b -->c", "ac"),
    "comment without end": ("a<!-- b", "a"),
    "reference": ('Corn.<ref name="a>b">{{cite|x}}</ref> Wheat.<ref name=a/>', "Corn. Wheat."),
    "reference without end": ("Corn.<ref>Wheat.", "Corn.Wheat."),
    "gallery": ("a\n<gallery>\nFile:A.jpg|b\n</gallery>\nc", "a\n\nc"),
    "nowiki": ("a <nowiki>[[b]] &amp; ''c''</nowiki>", "a [[b]] & ''c''"),
    "code": ('<syntaxhighlight lang="c">\nint a[2] = {{1}};\n</syntaxhighlight>', "int a[2] = {{1}};"),
    "formula": (r"so <math display=block>a_{{i}}^{2}</math>.", r"so $a_{{i}}^{2}$."),
    "dropped template": ("{{Infobox mill\n| name = {{lang|fr|Moulin}}\n| {{!}} x\n}}A mill.", "A mill."),
    "nested inline templates": ("a {{nowrap|b {{lang|fr|moulin}}}} c", "a b moulin c"),
    "template with named text": ("{{quote|text=Grind on.|author=X}}", "Grind on."),
    "conversion": ("It is {{convert|5|km|mi|abbr=on}} or {{cvt|3|to|4|ft}} long", "It is 5 km or 3 to 4 ft long"),
    "magic equals and bar": ("a {{=}} b {{!}} c", "a = b | c"),
    "template parameter": ("a{{{name|default}}}b", "ab"),
    "template without end": ("a\n{{never closed | b\nc", "a\n\nc"),
    "stray closing braces": ("a }} b", "a b"),
    "brackets left empty": ("A mill ({{IPA|x}}; {{lang|de|Mühle}}) grinds ({{IPA|x}}) corn {{x}}, daily.",
                            "A mill (Mühle) grinds corn, daily."),
    "link": ("[[mill]]s and [[Mill stone|stones]]", "mills and stones"),
    "pipe trick": ("[[Ely (city)|]] [[w:Ely|]]", "Ely Ely"),
    "file with links in its caption": ("[[File:A.jpg|thumb|a [[mill]] by [[x|y]]]]Text", "Text"),
    "localised file": ("[[Datei:A.jpg|mini]][[Fichier:B.png]][[文件:C.jpg]]Text", "Text"),
    "category and language links": ("Text[[Category:Mills]]\n[[fr:Moulin]]\n[[:Category:Mills]]",
                                    "Text\n\nCategory:Mills"),
    "external link": ("[https://example.org Mill site], [https://example.org] and https://example.org/x",
                      "Mill site, and https://example.org/x"),
    "link without end": ("a [[b c", "a b c"),
    "link without end before a heading": ("a [[File:b c\n== D ==\ne]] f", "a File:b c\n\nD\n\ne f"),
    "link over a line": ("a [[b\nc|d]] e", "a b\nc|d e"),
    "link in a cell": ("{|\n| [[a|b]] || c\n|}", "b | c"),
    "external link in a list": ("* [http://x.org a] b", "- a b"),
    "bracketed words": ("he said [sic] that", "he said [sic] that"),
    "bold and italic": ("'''A''' ''b'' '''''c''''' l''''amour''' it's", "A b c l'amour it's"),
    "headings": ("== One ==\ntext\n=== Two ===\nmore", "One\n\ntext\n\nTwo\n\nmore"),
    "empty sections": ("text\n== A ==\n=== B ===\nmore\n== C ==\n{{reflist}}\n== D ==\n", "text\n\nA\n\nB\n\nmore"),
    "lists": ("* a\n** b\n# c\n: d\n; e : f", "- a\n- b\n- c\nd\ne: f"),
    "table": ('{| class="x"\n|+ Mills\n! Name !! style="a" | Year\n|-\n| [[A|a]] || 1900\n|-\n| b\n| 1901\n|}\nafter',
              "Mills\nName | Year\na | 1900\nb | 1901\nafter"),
    "table cell of several lines": ("{|\n| \n* a\n* b\n| c\n|}", "- a\n- b\nc"),
    "table without end": ("{|\n| a\n== B ==\nc", "a\n\nB\n\nc"),
    "table of tags": ("{| border=1\n<tr><td>a</td><td>b</td></tr>\n|}\nc", "a\n\nb\nc"),
    "nested tables": ("{|\n| a\n{|\n| b\n|}\n| c\n|}\nd", "a\nb\nc\nd"),
    "html": ('<div class="x">a<br/>b</div><span>c</span> d<sup>2</sup> x < y > z', "a\nb\nc d2 x < y > z"),
    "entities": ("5&nbsp;km &ndash; &eacute;&#233; &lt;b&gt;", "5 km – éé <b>"),
    "switches": ("__NOTOC__a snake__case__b ----", "a snakeb ----"),
    "rule": ("a\n----\nb", "a\n\nb"),
    "variants": ("-{zh-hans:软件;zh-hant:軟體}-和-{zh-tw:滑鼠;zh-cn:鼠标}-", "软件和鼠标"),
    "variants without the wanted one": ("-{zh-hk:的士;zh-sg:德士}-", "的士"),
    "variants with flags": ("-{A|zh-hans:甲;zh-hant:乙}--{H|zh-cn:x;zh-tw:y}--{R|原}--{丙}-", "甲原丙"),
    "nested variants": ("-{zh-hans:a-{b}-c;zh-hant:d}-", "abc"),
    "japanese reading": ("'''{{読み仮名|水車|すいしゃ}}'''は", "水車（すいしゃ）は"),
    "french century": ("au {{s|XIX}} et {{XVIIe siècle}}", "au XIXe siècle et XVIIe siècle"),
    "breaks in a row": ("<div><p>a<br><br><br>b</p></div>", "a\n\nb"),
    "tag over two lines": ('a <span\nclass="x">b</span> c', "a b c"),
    "code in a list": ("* a\n<pre>\n* b\n  c\n</pre>\nd", "- a\n\n* b\n  c\n\nd"),
    "tags without brackets": ("a < b <c> d", "a < b <c> d"),
    "numbered characters": ("&#8211; &#x2014; &#150; &amp;lt; &nosuch; &", "– — – &lt; &nosuch; &"),
    "definition with an address": ("; see http://x.org : there", "see http://x.org: there"),
    "empty cells": ("{|\n| || a ||\n| b\n|}", "a | b"),
    "break in a cell": ("{|\n| a<br>b || c\n|}", "a\nb\nc"),
    "template in a template's argument": ("{{lang|fr|{{unknown|x}}mot<ref>y</ref>}}", "mot"),
    "template with a link in it": ("{{lang|fr|[[a|b]] c}}", "b c"),
    "upper-case name": ("{{Lang|fr|mot}} {{NOWRAP|x}}", "mot x"),
    "carriage returns": ("a\r\n\r\nb", "a\n\nb"),
}  # fmt: skip


@pytest.mark.parametrize(("wikitext", "text"), RULES.values(), ids=RULES)
def test_rule(wikitext: str, text: str) -> None:
    assert to_text(wikitext, SITE) == text


def with_parts(wikitext: str, *parts: str) -> str:
    return to_text(wikitext, Site(parts=frozenset(parts)))


def test_captions_can_be_kept() -> None:
    assert with_parts("a [[File:A.jpg|thumb|200px|A [[mill]] in Ely]] b", "captions") == "a\nA mill in Ely\nb"
    assert with_parts("a [[File:A.jpg|thumb|alt=A mill in Ely]]b", "captions") == "a b"
    gallery = "a\n<gallery mode=x>\nA.jpg|A ''mill''\nB.jpg\nFile:C.jpg|Another [[mill|one]]\n</gallery>\nb"
    assert with_parts(gallery, "captions") == "a\n\nA mill\n\nAnother one\n\nb"
    assert with_parts(gallery) == "a\n\nb"


def test_headings_and_lists_can_be_left_out() -> None:
    wikitext = "a\n== B ==\n* c\n:; d : e\n; f\ng\n{|\n| h\n|}"
    assert with_parts(wikitext, "headings", "lists", "tables") == "a\n\nB\n\n- c\nd: e\nf\ng\nh"
    assert with_parts(wikitext, "lists") == "a\n- c\nd: e\nf\ng"
    assert with_parts(wikitext, "headings") == "a\n\nB\n\nd: e\ng"


def test_boxes_of_facts_can_be_kept_as_lines() -> None:
    facts = "| name = [[Ely|Ely Mill]]\n| built_in = {{circa|1900}}<ref>x</ref>\n| image=A.jpg\n| owner =\n"
    box = "{{Infobox mill\n" + facts + "}}"
    assert with_parts(box + "A mill.", "infoboxes") == "name: Ely Mill\nbuilt in: c. 1900\n\nA mill."
    assert with_parts("{{cite|a=b}}A mill. {{Infobox x|a=", "infoboxes") == "A mill."


def test_categories_can_be_kept() -> None:
    assert with_parts("a\n[[Category:Mills]]\n[[Category:Ely|*]]", "categories") == "a\n\nCategory: Mills, Ely"
    site = Site(category_namespaces=frozenset(["kategoreja"]), parts=frozenset(["categories"]))
    assert to_text("a [[Kategoreja:Ely]] [[Ely]]", site) == "a Ely\n\nKategoreja: Ely"


def test_headings_can_be_marked() -> None:
    assert to_text("== A ==\nb\n=== C ===\nd", Site(markdown_headings=True)) == "## A\n\nb\n\n### C\n\nd"


def test_tables_can_be_left_out() -> None:
    assert to_text("a\n{|\n| b\n|}\nc", Site(parts=frozenset())) == "a\nc"


def test_variants_follow_the_order_asked_for() -> None:
    assert to_text("-{zh-hans:软件;zh-hant:軟體}-", Site(chinese_variants=("zh-hant",))) == "軟體"


def test_a_wiki_of_its_own_names_is_understood() -> None:
    assert to_text("[[Datne:A.jpg|x]]b", Site(hidden_namespaces=frozenset({"datne"}))) == "b"


HOSTILE = (
    "{{", "{{a|", "{{lang|x|", "{{{", "}}", "[[", "[[a|b", "[http://a ", "[http://", "<ref", "<ref>", '<ref name="',
    "<!--", "<b ", "'' x", "{|\n|a\n", "|", "\n|a||b", "== ", "==", "-{", "-{zh:",
    "__", "__AB", "(", "( , ", " ,", "*", ";",
    "&", "<math>", "</ref>", "{|", "|-\n", "[[a(", "-{A|", "\n!", "<nowiki>",
)  # fmt: skip


EVERYTHING = Site(parts=frozenset(["headings", "lists", "tables", "captions", "infoboxes", "categories"]))
OPEN_EXTRAS = ("<gallery>", "<gallery", "</gallery>", "{{Infobox a|", "{{infobox", "[[Category:", "[[Category:a]]", "|")


@pytest.mark.parametrize("mark", OPEN_EXTRAS)
def test_time_is_linear_with_all_parts(mark: str) -> None:
    plain_text = PlainText(EVERYTHING)
    began = time.process_time()
    plain_text.read((mark * 30_000).encode())
    assert time.process_time() - began < 1


@pytest.mark.parametrize("mark", HOSTILE)
def test_time_is_linear(mark: str) -> None:
    """100,000 of each mark: 0.01 s; anything quadratic would take minutes."""
    began = time.process_time()
    PLAIN.read((mark * 100_000).encode())
    assert time.process_time() - began < 1


def test_deep_nesting_that_is_closed() -> None:
    assert to_text("{{nowrap|" * 30_000 + "x" + "}}" * 30_000 + "y", SITE) == "y"
    assert to_text("[[a|" * 30_000 + "x" + "]]" * 30_000, SITE).endswith("x")


def test_links_that_lie_in_each_other_keep_their_words() -> None:
    """The innermost sixteen are links; of those around them the words stay."""
    for depth in (2, 16, 17, 40):
        assert PLAIN.read(b"[[a|x " * depth + b"y" + b"]]" * depth).endswith("x y")
    assert PLAIN.read(b"[[a " * 20 + b"[[b|c]] [[Category:d]]") == "a " * 20 + "c"


@given(
    st.lists(
        st.sampled_from(
            [*HOSTILE, "}}", "]]", "|", "|}", "}-", "\n", "==", "a", "b c", "</ref>", "-->", "\x02", "1\x03"]
        )
    )
)
def test_any_markup_is_read(pieces: list[str]) -> None:
    text = to_text("".join(pieces), SITE)
    assert "\x02" not in text and "\x03" not in text


OPEN = [piece for piece in HOSTILE if "<" not in piece and "&" not in piece]


@given(st.lists(st.sampled_from([*OPEN, "}}", "]]", "|", "|}", "}-", "\n", "a", "b c", "lang", "''"])))
def test_no_double_braces_are_left(pieces: list[str]) -> None:
    text = to_text("".join(pieces), SITE)
    assert "{{" not in text and "}}" not in text


def test_mutated_articles(shared_data: Path) -> None:
    """3,000 real articles with pieces cut out, doubled and moved, read within seconds."""
    data = bz2.decompress((shared_data / "encyclopedia" / "enwiki-mini-wiki.xml.bz2").read_bytes())
    pages = [ElementTree.fromstring(found) for found in re.findall(rb"<page>.*?</page>", data, re.S)]
    articles = [(page.findtext("revision/text") or "").encode()[:8000] for page in pages]
    chance = random.Random(1)
    began = time.process_time()
    for number in range(3000):
        article = bytearray(articles[number % len(articles)])
        for _ in range(chance.randrange(1, 9)):
            first, size, to = (chance.randrange(len(article) + 1) for _ in range(3))
            piece = article[first : first + size % 60]
            if number % 2:
                del article[first : first + size % 60]
            article[to:to] = piece
        text = PLAIN.read(bytes(article))
        assert not re.search("[\\x00-\\x08]", text)
    assert time.process_time() - began < 10


LEFT = re.compile(r"\{\{|\}\}|\[\[|\]\]|\{\||\|\}|^\|-|</?ref|''|^==|&nbsp;|__[A-Z]+__|<br|\[http|style=|-\{|\|\|")


@pytest.mark.parametrize("language", ["en", "de", "fr", "ja", "ko", "zh", "ar", "ltg"])
def test_no_markup_is_left_in_real_articles(shared_data: Path, language: str) -> None:
    name = "ltgwiki-pages-articles.xml.bz2" if language == "ltg" else f"{language}wiki-mini-wiki.xml.bz2"
    data = bz2.decompress((shared_data / "encyclopedia" / name).read_bytes())[:600_000]
    pages = [ElementTree.fromstring(found) for found in re.findall(rb"<page>.*?</page>", data, re.S)]
    lines = [
        re.sub(r"\$[^$]*\$", "", line)
        for page in pages
        if page.findtext("ns") == "0"
        for line in to_text(page.findtext("revision/text") or "", SITE).splitlines()
        if line
    ]
    left = [line for line in lines if LEFT.search(line)]
    assert len(lines) > 50
    assert len(left) <= 0.001 * len(lines), left[:5]
