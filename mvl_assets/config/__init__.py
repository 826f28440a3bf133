"""User configuration: sources, profiles, prompts and settings, read strictly from YAML and the environment."""
