from sklearn.ensemble import ExtraTreesClassifier


class Classifier(ExtraTreesClassifier):
    def __init__(self):
        super().__init__(n_estimators=50, random_state=57)
