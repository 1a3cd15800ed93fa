import numpy as np
from sklearn.isotonic import IsotonicRegression


class Calibrator:
    """One monotone curve a class, from the classifier's probability to the observed frequency."""

    def fit(self, probas, y):
        classes = np.unique(y)
        self.curves = [
            IsotonicRegression(y_min=0.001, y_max=1.0, out_of_bounds="clip").fit(proba, y == label)
            for proba, label in zip(probas.T, classes, strict=True)
        ]
        return self

    def predict_proba(self, probas):
        curved = np.column_stack(
            [curve.predict(proba) for curve, proba in zip(self.curves, probas.T, strict=True)]
        )
        return curved / curved.sum(axis=1, keepdims=True)
