"""What a user adds from a file of his own, one registration each; imported by tests/test_from_outside.py."""
