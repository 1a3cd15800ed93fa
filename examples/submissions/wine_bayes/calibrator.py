import numpy as np
from sklearn.linear_model import LogisticRegression


class Calibrator:
    """Platt's scaling for several classes: a logistic regression on the logarithms of the probabilities."""

    def __init__(self):
        self.model = LogisticRegression(C=0.1, max_iter=1000)

    def fit(self, probas, y):
        self.model.fit(self._logs(probas), y)
        return self

    def predict_proba(self, probas):
        return self.model.predict_proba(self._logs(probas))

    def _logs(self, probas):
        return np.log(np.clip(probas, 1e-6, 1.0))
