"""Raw inputs on other machines: read in ranges that are tried again, kept on disk where asked, chosen by an index."""
