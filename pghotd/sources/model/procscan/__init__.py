"""Source that follows real processes: it chooses and reads them, mirrors them in the model, and reports accesses."""
