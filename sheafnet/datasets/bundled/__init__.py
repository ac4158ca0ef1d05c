"""Real data that travels with the package; what it is and whose is in `provenance.json`."""
