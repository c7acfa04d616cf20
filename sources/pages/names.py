"""The names that the scanner knows: tags and what they do, words in `class` and `id`, words in text.

Invariant: a name is found by the hash of its lower-case letters, less a final `s`; no two known names share a hash
(checked when the tables are made). A group of words is one bit, so what stands above a block is one integer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

BLOCK, VOID, RAW, UNSEEN, CELL, INLINE_SCOPE = 1, 2, 4, 8, 16, 32
"""What a tag does: breaks the line; has no content; holds no markup; is not shown; is part of a table; a barrier."""

TAGS = (
    "html head body title meta link script style base noscript template "
    "p div section article main aside nav header footer form fieldset figure figcaption blockquote address details "
    "summary dialog center hgroup search menu "
    "h1 h2 h3 h4 h5 h6 ul ol li dl dt dd table caption colgroup col thead tbody tfoot tr td th pre hr br "
    "a b i em strong span u s small big font code kbd samp var tt sub sup mark abbr cite q time label button input "
    "select option optgroup textarea img svg math semantics annotation iframe object video audio canvas embed source "
    "track wbr param area map picture del ins noembed noframes xmp marquee ruby rt rp dfn data output legend "
    "frameset frame nobr tbody plaintext"
).split()
TAG = {name: number for number, name in enumerate(dict.fromkeys(["?", *TAGS]))}
_BLOCKS = (
    "html body p div section article main aside nav header footer form fieldset figure figcaption blockquote address "
    "details summary dialog center hgroup search menu h1 h2 h3 h4 h5 h6 ul ol li dl dt dd table caption thead tbody "
    "tfoot tr td th pre hr noscript legend frameset xmp"
).split()
_VOIDS = "meta link base col hr br input img embed source track wbr param area frame".split()
_RAWS = "title script style textarea iframe noembed noframes xmp".split()
_UNSEEN = "head title script style template textarea iframe object video audio canvas select noembed svg rt rp".split()
_CELLS = "table caption colgroup thead tbody tfoot tr td th".split()

MARKS = {
    "nav": "nav menu", "header": "header hgroup", "footer": "footer", "aside": "aside", "article": "article",
    "main": "main", "section": "section", "form": "form fieldset", "table": "table", "th": "th", "list": "ul ol dl",
    "item": "li dt dd", "figure": "figure", "caption": "figcaption caption", "button": "button", "link": "a",
    "heading": "h1 h2 h3 h4 h5 h6", "h1": "h1", "quote": "blockquote", "pre": "pre xmp", "code": "code samp kbd tt",
    "label": "label legend", "details": "details", "dialog": "dialog", "address": "address", "p": "p",
    "noscript": "noscript", "bold": "b strong", "emphasis": "i em", "small": "small", "time": "time",
    "h2": "h2", "h3": "h3", "span": "span", "div": "div", "td": "td", "math": "math", "sup": "sup",
    "summary": "summary",
}  # fmt: skip
"""Tags as bits of what stands around a text: name of the bit, tags that set it."""
HIDDEN = 1 << len(MARKS)
"""The bit of elements that their own attributes hide; `UNSHOWN` above it, of those that never show."""
UNSHOWN = HIDDEN << 1

CLASS_WORDS = {
    "nav": "nav navigation navbar menu mainmenu submenu topnav subnav menubar megamenu dropdown navlink toplink",
    "header": "header masthead topbar head banner sitehead siteheader pageheader top",
    "footer": "footer foot bottom colophon sitefooter pagefooter",
    "sidebar": "sidebar aside widget rail sidecolumn rightcolumn leftcolumn sidenav side right left secondary",
    "comment": "comment disqu commentlist respond discussion",
    "reply": "reply replies answer response thread topic",
    "share": "share social sharing facebook twitter follow addthi sharethi linkedin pinterest whatsapp",
    "related": "related recommend recommended recommendation more also similar suggested suggestion popular trending "
               "recent latest readmore upsell crosssell recently viewed",
    "advert": "ad advert advertisement sponsor sponsored promo promotion banner dfp outbrain taboola adsense promoted",
    "crumb": "breadcrumb crumb breadcrumbs path",
    "pager": "pagination pager paging paginator page next previou prev",
    "content": "content entry story articlebody postbody entrycontent postcontent maincontent bodytext richtext rte "
               "wysiwyg prose markdown",
    "article": "article post blogpost single",
    "main": "main primary center middle",
    "text": "text copy paragraph body blurb intro lead excerpt summary abstract",
    "title": "title headline heading subtitle subheading hed",
    "byline": "meta byline author date time published timestamp updated posted",
    "tag": "tag tagged category categories topic label keyword badge",
    "product": "product item sku variant goods",
    "price": "price amount cost discount sale currency msrp",
    "describe": "description desc detail overview feature about information info",
    "specification": "spec specification attribute dimension parameter property ingredient",
    "review": "review rating star testimonial feedback",
    "cart": "cart basket checkout wishlist addtocart buy qty quantity minicart bag",
    "form": "form login signin signup register newsletter subscribe subscription email input field contact mailchimp",
    "modal": "modal popup overlay lightbox offcanva drawer toast dialog tooltip flyout",
    "cookie": "cookie consent gdpr privacy onetrust",
    "search": "search filter facet sort sorting refine",
    "toc": "toc tableofcontent contents outline index",
    "figure": "caption figure credit image img photo gallery media video thumbnail thumb slider carousel swiper slide",
    "card": "card tile teaser grid list listing result row feed stream collection",
    "message": "message messagebody postbody bbwrapper bbcode lia userpost postmessage cooked md",
    "quote": "quote blockquote quoted bbcodeblock",
    "user": "user profile avatar username member signature rank karma userinfo bio",
    "hidden": "hidden hide invisible sr screenreader visuallyhidden collapsed closed",
    "legal": "copyright legal term disclaimer policy license",
    "accordion": "faq accordion question collapse tab panel toggle",
    "code": "code highlight hljs sourcecode snippet syntax",
    "language": "language lang locale country region translation",
    "button": "button btn cta action link icon toolbar control permalink edit",
    "hero": "hero jumbotron cover",
    "section": "section block container wrapper inner column col module component",
    "skip": "skip jump print noprint",
    "count": "count view vote score stat number counter like",
}  # fmt: skip
"""What class, id, role and itemprop say: groups of words."""

TEXT_WORDS = {
    "cart": "cart basket checkout wishlist buy qty shipping delivery stock returns",
    "login": "login signin signup register account password logout username",
    "subscribe": "subscribe newsletter unsubscribe email inbox",
    "share": "share facebook twitter linkedin pinterest instagram whatsapp youtube tiktok reddit tweet follow",
    "legal": "copyright reserved rights privacy terms cookie cookies policy disclaimer trademark",
    "related": "related recommended similar popular trending latest recent also featured",
    "more": "read more show view see click learn expand load continue here",
    "comment": "comment comments reply replies respond comentarios kommentare",
    "forum": "post posted posts thread joined member members views likes reputation topic quote",
    "date": "january february march april may june july august september october november december jan feb mar apr jun "
            "jul aug sep sept oct nov dec ago day days hour hours minutes yesterday today",
    "navigate": "home menu search contact about skip next previous back top sitemap navigation toggle",
    "advert": "advertisement sponsored ad ads affiliate commission promoted",
    "byline": "by author published updated written editor staff writer min reading",
    "review": "review reviews rating ratings stars star rated customer customers verified",
    "function": "the of and to in is that for it with as was on are be this at from or an by not have you we they "
                "his her our your their can will which has but what when all there if so",
    "foreign": "de la le les et des du en un une que el los las por con para der die das und ist nicht mit von den zu "
               "il di che per non una i",
    "price": "price usd eur gbp sale discount off free save deal",
    "filter": "filter sort results showing items per page apply clear reset",
    "help": "help support faq careers jobs press about company blog download app store",
    "tag": "tags tag categories category filed under topics",
}  # fmt: skip


@dataclass(frozen=True)
class NameTable:
    """Open addressing by hash: `keys` and, at the same place, `values`; the size is a power of two."""

    keys: npt.NDArray[np.uint64]
    values: Ints


def hash_name(name: str) -> int:
    """FNV-1a of the lower-case letters and digits, less a final `s`; what the scanner computes from bytes."""
    value = 14695981039346656037
    for byte in name.encode().removesuffix(b"s"):
        value = ((value ^ byte) * 1099511628211) & 0xFFFFFFFFFFFFFFFF
    return value


def _table(pairs: dict[int, int]) -> NameTable:
    size = 1 << (2 * len(pairs)).bit_length()
    keys, values = np.zeros(size, np.uint64), np.zeros(size, np.int64)
    for key, value in pairs.items():
        place = key & (size - 1)
        while keys[place]:
            place = (place + 1) & (size - 1)
        keys[place], values[place] = key, value
    return NameTable(keys, values)


def _group_table(groups: dict[str, str]) -> NameTable:
    """Word → bits of the groups that it stands in."""
    bits: dict[int, int] = {}
    for number, words in enumerate(groups.values()):
        for word in set(words.split()):
            bits[hash_name(word)] = bits.get(hash_name(word), 0) | 1 << number
    return _table(bits)


def _flags() -> Ints:
    kinds = ((BLOCK, _BLOCKS), (VOID, _VOIDS), (RAW, _RAWS), (UNSEEN, _UNSEEN), (CELL, _CELLS))
    found = np.zeros(len(TAG), np.int64)
    for flag, names in kinds:
        for name in names:
            found[TAG[name]] |= flag
    return found


def _marks() -> Ints:
    found = np.zeros(len(TAG), np.int64)
    for number, names in enumerate(MARKS.values()):
        for name in names.split():
            found[TAG[name]] |= 1 << number
    found[[TAG[name] for name in _UNSEEN]] |= UNSHOWN
    return found


# `s` is a tag and also what is left out at the end of a word, so tags are hashed with a mark before them.
TAG_TABLE = _table({hash_name(f"<{name}>"): number for name, number in TAG.items()})
CLASS_TABLE = _group_table(CLASS_WORDS)
TEXT_TABLE = _group_table(TEXT_WORDS)
FLAGS = _flags()
TAG_MARKS = _marks()
