"""What a layer is made of: encoding, ansatz, first weights, and the spec that names them."""

__all__: list[str] = []
