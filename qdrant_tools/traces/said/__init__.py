"""What people and judges said of searches and answers -> opinions, each with what it is of."""
