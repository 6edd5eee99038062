"""The nouns that every plane shares: values only, no behaviour that does I/O."""
