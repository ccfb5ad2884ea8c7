"""Parts of the SQLAlchemy probe: templates and shapes of statements, transactions, quiet moments."""
