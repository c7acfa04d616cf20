"""Deduplication: exact copies and verified near-duplicates, as pure functions that a job schedules part by part.

No Ray and no Prefect here: numpy, numba, pyarrow and storage. `deduplicate.py` runs all phases in one process and is
the order in which a job schedules them:

    signatures.py   a part            -> SIGNATURES, row for row
    exact.py        signatures        -> rows by hash range   -> COPIES: what equals what
    candidates.py   signatures        -> rows by band range   -> CANDIDATES and CROWDS by group
    verify.py       candidates        -> wanted rows by part  -> SHINGLES by group -> PAIRS with their true Jaccard
    components.py   pairs and copies  -> EDGES by range       -> what is tied together, and where it is settled
    keepers.py      pairs and copies, in policy order -> who is kept, and who is dropped for whom
    canaries.py     planted pairs     -> recall and precision of this run's own search

`search/` runs them over files (`range_files.py`), part by part and range by range, for corpora that only grow.
Between phases rows travel in tables whose first column, `range`, is the number of the task that reads them next
(`shuffle.py`); a task reads its range of every file and nothing else, so its memory is set by the number of ranges.
"""
