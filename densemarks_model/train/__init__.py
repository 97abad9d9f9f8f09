"""Training of embedding networks: ``python -m densemarks_model.train --config FILE``."""
