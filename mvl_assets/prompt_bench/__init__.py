"""A bench for prompts: a few rows asked with a prompt at hand, shown beside what the lake has. No table is changed."""
