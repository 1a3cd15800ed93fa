from sklearn.linear_model import Ridge


class Regressor(Ridge):
    def __init__(self):
        super().__init__(alpha=0.1)
