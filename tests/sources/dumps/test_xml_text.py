"""The text of an element against ElementTree, which reads all of XML."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.dumps.xml_text import unescape_text

PIECES = ["&lt;", "&amp;", "&#233;", "&#x1F600;", "&apos;", "&nbsp;", "&#0;", "&#xD800;", "&;", "&", "<", "<b/>", "]",
          "\x00", "\x0b", "\r\n", "\r", "\t", "é", "水", "a", "amp;", "&#x;", "&#12a;", "&quot;", "&gt;"]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES)))
def test_what_element_tree_reads(pieces: list[str]) -> None:
    data = "".join(pieces).encode()
    try:
        wanted = ElementTree.fromstring(b"<t>" + data.replace(b"<b/>", b"<") + b"</t>").text or ""
    except ElementTree.ParseError:
        with pytest.raises(ValueError, match="not well-formed"):
            unescape_text(data)
    else:
        assert unescape_text(data).decode() == wanted


def test_bytes_that_are_no_utf8() -> None:
    with pytest.raises(ValueError, match="utf-8"):
        unescape_text(b"a\xff")
