"""Layers that share their weights."""
