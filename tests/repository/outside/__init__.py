"""What a user adds from a file of his own, one registration each; imported by run_from_outside.py."""
