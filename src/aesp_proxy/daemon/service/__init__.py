"""The service: what holds listener, workers, sealer and policy together while the host runs."""
