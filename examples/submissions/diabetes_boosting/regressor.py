from sklearn.ensemble import GradientBoostingRegressor


class Regressor(GradientBoostingRegressor):
    def __init__(self):
        super().__init__(n_estimators=60, max_depth=2, learning_rate=0.08, random_state=57)
