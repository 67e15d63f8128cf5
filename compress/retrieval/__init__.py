"""Representations that are mostly zeros, and what searches them."""
