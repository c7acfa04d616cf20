"""Repeated spans: what of a document stands elsewhere too, to the byte; as pure functions that a job schedules.

    parameters.py   what is asked: a length in bytes, words or tokens; or lines, paragraphs, sentences by host or corpus
    units.py        texts         -> units: a string of bytes, and where each unit stands in the text
    anchors.py      units         -> ANCHORS by hash range -> WANTED: anchors that stand elsewhere too -> PIECES of text
    repeats.py      pieces        -> RUNS: which windows of the asked length repeat, by one suffix array
    lines.py        texts         -> LINES by hash range   -> REPEATED: which stand in enough documents -> RUNS
    measure.py      runs of a part -> for each document its spans, and what of them can go
    cut.py          spans         -> the texts without them

A corpus that fits is one piece a document, and `repeats.py` sees all of them at once; `anchors.py` is what cuts a
corpus that does not fit into ranges, without changing a byte of the result.
"""
