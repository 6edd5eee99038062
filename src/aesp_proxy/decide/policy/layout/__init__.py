"""One layout for the text of a policy, comments kept: read with its comments, written again.

``read`` makes a tree of a text, ``write`` a text of a tree, ``same`` holds the one against
the other: what would change the meaning or lose a comment is not written.
"""
