import numpy as np


class FeatureExtractor:
    """The mean and worst measurements, on a logarithmic scale; the standard errors are left out."""

    def fit(self, X_df, y):
        self.columns = [name for name in X_df.columns if name.startswith(("mean", "worst"))]
        return self

    def transform(self, X_df):
        return np.log1p(X_df[self.columns].to_numpy())
