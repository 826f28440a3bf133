"""Code that runs in lmms-eval's own environment: its models, and the process that runs its tasks.

It may import only the standard library, Pillow, lmms-eval's dependencies, and modules of this project that need nothing
else. The models here answer nothing themselves: each holds a pipe to `benchmarks.lmms_worker`, a process of the
project's environment.
"""
