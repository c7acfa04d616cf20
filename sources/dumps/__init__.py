"""MediaWiki dumps: bzip2, XML and pages, each streamed and compiled."""
