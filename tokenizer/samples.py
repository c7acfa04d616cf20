"""Texts on which tokenizers and their trainers were seen to differ: what decides whether a fast one may work."""

from __future__ import annotations

import random


def hard_samples() -> list[str]:
    """Texts on which tokenizers were seen to differ, and 300 of seeded random code points of all planes."""
    written = [
        "",
        " ",
        "I'll we'VE don'T it's 'Sam' o'clock",
        "0123456789 3.14159 1,000,000 ١٢٣ ４５６ ½ Ⅷ x² 10⁻³",
        "def f(x):\n\tif x:\n\t\treturn  {\n        'a': 1 }  # é\r\n\r\n\n    pass   \n",
        "trailing spaces   \n\n  leading\u00a0no-break\u3000ideographic\u2028line\u0085next",
        "नमस्ते दुनिया ก็ที่นี่ العَرَبِيَّة עִבְרִית Ελληνικά русский",
        "中文没有空格。日本語とカタカナ、한국어 띄어쓰기",
        "👩‍👩‍👧‍👦🏳️‍🌈🇩🇪 e\u0301 ﬁ ﬀ Å ̧ a\u0308\u0304 \u200b\u200d\ufeff",
        "\x00\x01\x7f\ufffd\uffff\U0010ffff\ue000",
        "İıſßK DŽdždz 'ſ 'K",
        "a" * 3000,
        "=" * 500 + "\n" * 70 + " " * 300 + "x" + "\t" * 100,
        'https://example.org/a?b=c&d=%20#e user@example.org $x_1 <p class="a">&nbsp;</p> ```\n~~~',
    ]
    return written + _random_texts(300)


def _random_texts(count: int) -> list[str]:
    generator = random.Random(20)
    planes = ((0x20, 0x7E), (0xA0, 0x24F), (0x300, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF), (0x09, 0x0D))
    texts = []
    for _ in range(count):
        bounds = [generator.choice(planes) for _ in range(generator.randint(1, 40))]
        texts.append("".join(chr(generator.randint(*pair)) for pair in bounds))
    return texts
