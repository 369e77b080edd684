"""Training from arrays: ``jaxnlt.fit`` and the scikit-learn estimator."""
