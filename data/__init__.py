"""The bundled corpus and the bundled model, installed as `probes.data`."""
