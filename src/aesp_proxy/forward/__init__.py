"""Forward: from the spool on this host to the aggregator's signed receipt."""
