"""Evaluation of checkpoints on questions with reference answers, compared with chance.

`held_out` asks questions of the lake's held-out rows; `benchmarks` runs the paper's benchmarks through lmms-eval, and
`lmms` is the part of that which runs in lmms-eval's own environment. Both ask a backend: `local` (the exported model in
a process of this project) or `server` (a vLLM server).
"""
