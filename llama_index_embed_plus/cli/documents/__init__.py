"""Commands about documents: read them, look at them, index them, make training examples of them."""
