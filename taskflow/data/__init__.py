"""The data layer: models, the statements over them, and the repository that runs those."""
