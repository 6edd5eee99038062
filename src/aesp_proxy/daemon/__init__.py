"""The host process: settings, supervisor, worker, and the control protocol between them."""
