import numpy as np
from sklearn.preprocessing import StandardScaler


class FeatureExtractor:
    """All measurements, standardised, and one more: how the colour goes with the phenols."""

    def __init__(self):
        self.scaler = StandardScaler()

    def fit(self, X_df, y):
        self.scaler.fit(self._measured(X_df))
        return self

    def transform(self, X_df):
        return self.scaler.transform(self._measured(X_df))

    def _measured(self, X_df):
        per_phenol = X_df["color_intensity"] / X_df["total_phenols"]
        return np.column_stack([X_df.to_numpy(), per_phenol.to_numpy()])
