"""Training: a GAN whose discriminators the probes choose.

Read first: `config` (every option), `loop` (the loop, top to bottom), then `losses`,
`discriminator`, `state` (what is saved) and `snapshots` (what is shipped).
"""
