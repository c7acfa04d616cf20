"""MediaWiki markup to the text that a reader sees, in linear time on any input; the rules are in each module's head."""

from sources.wikitext.plain import PlainText, Site, to_text

__all__ = ["PlainText", "Site", "to_text"]
