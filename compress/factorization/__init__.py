"""Matrices in factors."""
