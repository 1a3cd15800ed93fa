class FeatureExtractor:
    """The measurements, and the product of the two that matter most."""

    def fit(self, X_df, y):
        return self

    def transform(self, X_df):
        return X_df.assign(bmi_s5=X_df["bmi"] * X_df["s5"]).to_numpy()
