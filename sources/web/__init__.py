"""Web archives: WARC, ARC and WET records, and the character sets and texts of their pages."""
