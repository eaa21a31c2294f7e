"""Manual pages, completions, and the comments of configurations, made from the declarations in the code."""
