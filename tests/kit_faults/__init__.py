"""Over a hundred faulty backends, one fault each: what the conformance kit must refuse."""
