"""Parts of `gpu_step.py`: what is measured, on what data, by which model, alone and through the training loop."""
