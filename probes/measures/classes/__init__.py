"""Are the classes told apart?"""
