"""Sources: the libraries that build backbones, one file and one line each."""
