"""What holds of the repository: its structure, its pages, examples and benchmarks, and what users add from outside."""
