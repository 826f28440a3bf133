"""What runs inside lmms-eval's own environment: its models, and the process that runs its tasks.

Belongs here: code that imports `lmms_eval`. It may use nothing that the environment lacks: the standard library, Pillow
and what lmms-eval brings. Nothing outside this folder imports it. Asking a model is the work of a process of the
project's environment (`mvl_training.evaluation.benchmarks.lmms_worker`), to which the models here hold a pipe.
"""
