"""Page bytes to text under true, false and missing declarations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.web.charset import decode_html, encode_html

CHINESE = "磨坊把谷物磨成面粉。水力带动磨石转动，几百年来村民都在这里碾米磨面，直到电力取代了水车。"
TRADITIONAL = "磨坊把穀物磨成麵粉。水力帶動磨石轉動，幾百年來村民都在這裡碾米磨麵，直到電力取代了水車。"
RUSSIAN = "Мельница мелет зерно в муку, а вода вращает тяжёлые жернова день и ночь, как и сто лет назад."
JAPANESE = "水車は穀物を粉に挽く。村の人々は何百年ものあいだここで米や麦を挽いてきた。カタカナもあります。"

KOREAN = (
    "물레방아는 곡식을 빻아 가루로 만든다. 마을 사람들은 수백 년 동안 이곳에서 쌀과 밀을 빻아 왔다. 지금은 박물관이다."
)
UKRAINIAN = "Млин меле зерно на борошно, а вода крутить важкі жорна вдень і вночі, як і сто років тому, її не спинити."


def page(text: str, meta: str = "") -> str:
    return f"<html><head>{meta}<title>x</title></head><body><p>{text * 4}</p></body></html>"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (CHINESE, "gb18030"), (TRADITIONAL, "big5"), (CHINESE, "utf-8"), (RUSSIAN, "cp1251"), (RUSSIAN, "koi8-r"),
        (JAPANESE, "cp932"), (JAPANESE, "euc_jp"), (JAPANESE, "iso2022_jp"),
        (KOREAN, "cp949"), (UKRAINIAN, "koi8-u"), ("Grüße aus der Mühle – schön, nicht?", "cp1252"),
    ],
    ids=lambda value: value if value.isascii() else "",
)  # fmt: skip
class TestDeclarations:
    def written(self, text: str, encoding: str, meta: str = "") -> tuple[str, bytes]:
        return page(text, meta), page(text, meta).encode(encoding)

    def test_true_header(self, text: str, encoding: str) -> None:
        html, data = self.written(text, encoding)
        assert decode_html(data, encoding) == html

    def test_true_meta(self, text: str, encoding: str) -> None:
        html, data = self.written(text, encoding, f'<meta charset="{encoding}">')
        assert decode_html(data) == html

    def test_latin_header_over_true_meta(self, text: str, encoding: str) -> None:
        meta = f'<meta http-equiv="Content-Type" content="text/html; charset={encoding}">'
        html, data = self.written(text, encoding, meta)
        assert decode_html(data, "ISO-8859-1") == html

    def test_nothing_said(self, text: str, encoding: str) -> None:
        html, data = self.written(text, encoding)
        assert decode_html(data) == html


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "iso8859-5"])
def test_latin_header_over_cyrillic_that_says_nothing(encoding: str) -> None:
    assert decode_html(page(RUSSIAN).encode(encoding), "ISO-8859-1") == page(RUSSIAN)


def test_three_umlauts_among_much_english_are_no_damaged_utf8() -> None:
    html = f"<p>{'plain words ' * 200} Mühle, Grüße, schön</p>"
    assert decode_html(html.encode("cp1252"), "utf-8") == html


def test_utf8_wins_over_what_is_announced() -> None:
    assert CHINESE in decode_html(page(CHINESE).encode(), "gb2312")


def test_a_few_bad_bytes_do_not_change_the_encoding() -> None:
    data = page(CHINESE * 5).encode()
    assert decode_html(data[:100] + b"\xff" + data[100:], "utf-8").count("磨坊") == 20


def test_damaged_french_in_utf8_is_no_korean() -> None:
    text = page("Le blé est égrené près de l'écluse, à côté du marché. " * 5)
    damaged = text.encode().replace(b"pr", b"\xff\xfe\xe9pr", 3)
    assert decode_html(damaged).count("égrené") == text.count("égrené")


def test_the_claim_that_fits_best_is_believed() -> None:
    """Few Chinese characters among much ASCII would pass as a little damaged Japanese, which the header claims."""
    html = f'<meta charset="gbk"><p>{"plain words " * 200} 谷物</p>'
    assert decode_html(html.encode("gbk"), "shift_jis") == html


@pytest.mark.parametrize("bom", ["utf-8-sig", "utf-16"])
def test_byte_order_marks(bom: str) -> None:
    assert decode_html(page(CHINESE).encode(bom), "latin-1") == page(CHINESE)


@given(
    st.binary(max_size=300),
    st.sampled_from([None, "utf-8", "gb2312", "utf-7", "x-user-defined", "", "\x00", "hex", "idna"]),
)
def test_any_bytes_decode(data: bytes, announced: str | None) -> None:
    assert isinstance(decode_html(b'<meta charset="' + data, announced), str)


def test_large_utf8_is_left_as_it_is_and_known_by_all_of_it() -> None:
    """Characters lie across the borders of the pieces that are looked at; damage stands at the very end."""
    data = page(CHINESE * 9000).encode()
    assert len(data) > 4 << 20 and encode_html(data) is data
    assert encode_html(data + b"\xe6\x80") != data + b"\xe6\x80"
