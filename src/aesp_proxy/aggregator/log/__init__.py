"""The aggregator's transparency log: one leaf a batch, in the order in which they came."""
