"""The probes, by what is asked; no probe imports another family."""
