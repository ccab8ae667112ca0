"""One spec in every framework: the same numbers, the same errors."""
