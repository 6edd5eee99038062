"""A witness: cosigns checkpoints of logs that it has seen grow, and never two histories."""
