"""One module per command. Paths become objects here, once; all packages below take objects."""
