"""What is likely wrong in a policy that loads: rules and entries that do nothing or too much.

A finding is told only where it is sure: what cannot be decided is passed over in silence.
``checks`` is the table of all checks, ``run`` asks them, the others look.
"""
