"""Training: a GAN with discriminators chosen by probes.

Takes images, a bank and options; writes a run directory with snapshots. Read first: `config`
(every option), `loop` (a `run` from the first step to the last) and `step` (one step). Then
`presets`, `reals`, `selection`, `evaluation`, `state` and `state_file` (what is saved), `resume`,
`records` and `runs` (the run directory), `tracking` (TensorBoard and others). The ensemble is in
`probe.discriminators`.
"""
