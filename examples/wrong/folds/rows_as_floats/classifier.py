from sklearn.ensemble import RandomForestClassifier


class Classifier(RandomForestClassifier):
    def __init__(self):
        super().__init__(n_estimators=10, random_state=57)
