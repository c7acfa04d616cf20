"""The search over files: tasks that read and write range files, their order, and what a finished search leaves.

No Ray here: `run.py` calls a `Run`, which may be a loop, a pool of processes or a cluster. Per folder `duplicates/`:

    signatures/   a file a documents part, whatever the search            kept/   what a later search needs (below)
    work/         what only this search needs; `gristmill gc` removes it  pairs/ copies/ crowds/ members/   published

    kept/hashes   the first document of each text, by content hash     kept/pairs, copies, crowds   by range of places
    kept/bands    the band rows, by key                                kept/edges-…   how these tie documents together

Each generation of parts keeps its own files; a new crawl is compared with theirs and rewrites none of them.
"""
