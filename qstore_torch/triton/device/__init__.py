"""Device functions and kernels in Triton's language; they read tables, and know no circuit."""

__all__: list[str] = []
