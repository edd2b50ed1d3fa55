"""sentence-transformers' trainer with batches without false negatives, exact resumption and bounded memory."""
