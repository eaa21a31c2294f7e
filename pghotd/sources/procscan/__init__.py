"""Follow real processes: choose, look, mirror them in the model, report what they accessed."""
