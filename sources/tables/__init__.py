"""Rows that hold text: JSONL, Parquet, Hugging Face datasets, Enterprise articles and our own documents."""
