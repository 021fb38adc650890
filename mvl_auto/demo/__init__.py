"""The demo: a labelled dataset made on the spot, and the whole way on it."""
