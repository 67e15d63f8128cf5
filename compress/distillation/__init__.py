"""Fewer or narrower layers that learn from a teacher."""
