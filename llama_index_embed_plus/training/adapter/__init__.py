"""Query adapters: labels, or documents alone, and the vectors a collection holds -> a linear map, by numpy."""
