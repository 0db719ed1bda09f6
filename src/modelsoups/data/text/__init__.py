"""Converts tables of labelled texts (TSV, CSV, JSONL, parquet, arrow) to prepared data sets."""
