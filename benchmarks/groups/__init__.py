"""The groups of figures: each runs its measurements and turns the samples into rows with verdicts."""
