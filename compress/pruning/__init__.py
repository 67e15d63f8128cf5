"""Fewer weights, heads, channels, layers or tokens."""
