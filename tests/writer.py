"""A toy writer for the tests' server: answers each step by its schema, from the text, and goes wrong as texts say.

What it writes are the words of the text backwards, so that no 8-gram is copied. Words in capitals change that: COPYING
(the text itself), SAME (always one text), ALMOST (that text but for a word), OVERLAP and BEYOND (segments that are
none), CHATTER (no JSON), FENCED (JSON in a code fence after thoughts), HALFJSON (cut in the middle), BLANK (an empty
string).
"""

from __future__ import annotations

import json
import re
from typing import Any

ALWAYS = " ".join(f"word{n}" for n in range(60))
PROMPT_TOKENS, COMPLETION_TOKENS = 50, 20


def write_answer(payload: dict[str, Any], text: str) -> dict[str, Any]:
    """A chat completion in the form that the request asks for."""
    schema = (payload.get("structured_outputs") or {}).get("json") or payload["response_format"]["json_schema"][
        "schema"
    ]
    said = json.dumps(_said(schema["title"], text), ensure_ascii=False)
    if "CHATTER" in text:
        said = "I would rather talk."
    if "HALFJSON" in text:
        said = said[: len(said) // 2]
    if "FENCED" in text:
        said = f"<think>{{hm}}</think>\n```json\n{said}\n```"
    reason = "length" if "HALFJSON" in text else "stop"
    return {
        "choices": [{"message": {"role": "assistant", "content": said}, "finish_reason": reason}],
        "usage": {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": COMPLETION_TOKENS},
    }


def _said(form: str, text: str) -> dict[str, Any]:
    made = _made(text)
    return {
        "Segments": lambda: {"starts": _starts(text)},
        "Abstract": lambda: {"abstract": f"It says {made[:40]}"},
        "Reasoning": lambda: {"question": f"Why {made}?", "steps": [f"First {made}", "So it is."]},
        "Text": lambda: {"text": made},
        "Facts": lambda: {"facts": [made, "A fact."]},
        "Pairs": lambda: {"pairs": [{"question": f"Is {made}?", "answer": "Yes."}, {"question": "B?", "answer": "C."}]},
    }[form]()


def _made(text: str) -> str:
    if "COPYING" in text:
        return text.strip()
    if "SAME" in text:
        return ALWAYS
    if "ALMOST" in text:
        return ALWAYS.replace("word59", "other")
    return "" if "BLANK" in text else " ".join(reversed(text.split()))


def _starts(text: str) -> list[int]:
    """Every second sentence."""
    numbers = [int(number) for number in re.findall(r"^\[(\d+)\]", text, re.MULTILINE)]
    if "OVERLAP" in text:
        return [1, 3, 3]
    return [1, 999] if "BEYOND" in text else numbers[::2]
