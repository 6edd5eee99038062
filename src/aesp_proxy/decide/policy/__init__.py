"""Policy: YAML text to typed values with positions, and the matchers they are compiled to."""
