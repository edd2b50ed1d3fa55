"""Commands that give something to others: a model to a hub, collections to a language model."""
