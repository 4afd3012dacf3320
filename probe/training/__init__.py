"""Training: a GAN whose discriminators the probes choose.

Images, a bank and options come in; a run directory with snapshots goes out. Read first: `config`
(every option), `loop` (a `run` from the first step to the last), `step` (one step), `ensemble` (the
discriminators). Then `presets`, `reals`, `heads`, `augment`, `losses`, `selection`, `evaluation`,
`state` and `state_file` (what is saved), `resume`, `records` and `runs` (the run directory).
"""
