"""The gate table, families of gates of any size, gates of users, and synthesis from matrices."""

__all__: list[str] = []
