"""What a person types: mistakes in it, and the way from there to what was meant."""
