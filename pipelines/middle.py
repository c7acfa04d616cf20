"""Fill-in-the-middle between a recipe and its tokenizer: what the recipe's sources ask for keys the token store."""

from __future__ import annotations

from mixtures.middle import identify_choice
from mixtures.recipe import Recipe
from tokenizer.middle import KNOWN
from tokenizer.vocabulary import TokenizerFile, with_fill_in_middle


def arranged(recipe: Recipe, tokenizer: TokenizerFile) -> TokenizerFile:
    """The tokenizer as a store of this recipe has it; itself, where no source rearranges documents."""
    chosen = identify_choice(recipe)
    return with_fill_in_middle(tokenizer, chosen, recipe.tokenizer.fill_in_middle) if chosen else tokenizer


def special_tokens(recipe: Recipe) -> tuple[str, ...]:
    """Those of a tokenizer that is trained: the recipe's own, and the three for rearranging where they are needed."""
    train = recipe.tokenizer.train
    own = train.special_tokens if train else ()
    if identify_choice(recipe) is None:
        return own
    named = recipe.tokenizer.fill_in_middle
    known = any(set(tokens) <= set(own) for tokens in KNOWN)
    needed = named or (() if known else KNOWN[0])
    return (*own, *(token for token in needed if token not in own))
