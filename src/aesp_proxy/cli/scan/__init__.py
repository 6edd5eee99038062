"""``aesp-proxy scan``: find secrets in files, git history, staged changes, standard input."""
