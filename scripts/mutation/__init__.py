"""Mutation testing: small mistakes are made in a copy of the source, and the tests have to notice them."""
