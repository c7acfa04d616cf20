"""Fill-in-the-middle between a recipe and its tokenizer: what the recipe's sources ask for keys the token store."""

from __future__ import annotations

from mixtures.middle import identify_choice
from mixtures.recipe import Recipe
from tokenizer.vocabulary import TokenizerFile, with_fill_in_middle


def arranged(recipe: Recipe, tokenizer: TokenizerFile) -> TokenizerFile:
    """The tokenizer as a store of this recipe has it; itself, where no source rearranges documents."""
    chosen = identify_choice(recipe)
    return with_fill_in_middle(tokenizer, chosen, recipe.tokenizer.fill_in_middle) if chosen else tokenizer
