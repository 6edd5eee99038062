"""The record: canonical rows, signed batches, one chain an origin, and who writes them."""
