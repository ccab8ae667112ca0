"""Backends that are not ours to compute with: other simulators, hardware, clusters.

Each module here is one plugin of the entry-point group `qstore.backends`, written against the public contract of
`qstore_core` alone, exactly as a third party would write it.
"""
