"""Generators: a checkpoint becomes a `Generator`, and a generator an `ImageSource` by seed.

Read first: `base` (the contract), then `open` (what `--gen` stands for), `formats` (which reader
takes a file), `unpickle` (the reader of pickles that runs nothing; `vocabulary` is what it allows,
`records` what it gives, `listing` shows what a pickle refers to), `checkpoint` (what was read,
checked), `stylegan2` (the network), `sampler` (seeds to images).
"""
