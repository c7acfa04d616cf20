"""HTML pages to text: scanned to elements and runs of text, cut into blocks, each judged, the good ones written."""
