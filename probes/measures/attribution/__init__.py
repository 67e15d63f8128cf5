"""Who in the training set speaks for a prediction?"""
