"""The verbs, one module each. Paths become objects here, once; every room below takes objects."""
