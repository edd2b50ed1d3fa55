"""Files of anybody -> rows, JSON and trees, read within bounds; and files that are written whole or not at all."""
