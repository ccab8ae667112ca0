"""One circuit on every engine and backend: the same physics, noise, samples and counts."""
